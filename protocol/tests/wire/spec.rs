//! Holds the numbers in `PROTOCOL.md` to those in the code, in both directions.

use std::collections::BTreeMap;

use fanfold_protocol::field::{Field, LimitKind};
use fanfold_protocol::{Opcode, Status};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::strategies;

const SPECIFICATION: &str = include_str!("../../PROTOCOL.md");

/// Names by number in the table whose header starts with `header`.
fn table(header: &str) -> BTreeMap<u16, Vec<&'static str>> {
    let rows = SPECIFICATION.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (cells[1].parse().expect("a number"), cells[2..].to_vec())
        })
        .collect()
}

fn names(table: &BTreeMap<u16, Vec<&'static str>>) -> BTreeMap<u16, String> {
    table.iter().map(|(number, cells)| (*number, cells[0].to_owned())).collect()
}

#[test]
fn opcodes_are_those_of_the_specification() {
    let code = Opcode::ALL.map(|opcode| (opcode.code(), format!("{opcode:?}")));
    assert_eq!(names(&table("| opcode | request |")), BTreeMap::from(code));
}

#[test]
fn fields_are_those_of_the_specification() {
    let section = SPECIFICATION.find("### Fields").expect("the section exists");
    let limits = SPECIFICATION.find("### Limits named").expect("the section exists");
    let rows = |text: &str| {
        let cells = text.lines().filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
        });
        cells.collect::<BTreeMap<u16, String>>()
    };
    let fields = (0..=u16::MAX).filter_map(Field::from_code);
    let fields: BTreeMap<u16, String> = fields.map(|field| (field.code(), format!("{field:?}"))).collect();
    assert_eq!(rows(&SPECIFICATION[section..limits]), fields);
    let end = SPECIFICATION.find("## Faults").expect("the section exists");
    let kinds = (0..=u8::MAX).filter_map(LimitKind::from_code);
    let kinds: BTreeMap<u16, String> =
        kinds.map(|kind| (u16::from(kind.code()), format!("{kind:?}"))).collect();
    assert_eq!(rows(&SPECIFICATION[limits..end]), kinds);
}

#[test]
fn statuses_are_those_of_the_specification() {
    let specified = table("| code | name | data |");
    assert_eq!(specified.len(), 40);
    let mut seen: BTreeMap<u16, Status> = BTreeMap::new();
    let mut runner = TestRunner::deterministic();
    let statuses = strategies::status();
    while seen.len() < specified.len() {
        let status = statuses.new_tree(&mut runner).expect("always draws").current();
        seen.insert(status.code(), status);
    }
    for (code, status) in seen {
        let debug = format!("{status:?}");
        let name = debug.split(|c: char| !c.is_alphanumeric()).next();
        let yes = |answer: bool| if answer { "yes" } else { "" };
        let row = &specified[&code];
        assert_eq!(Some(row[0]), name);
        assert_eq!(row[2], yes(status.is_retryable()), "{debug}");
        assert_eq!(row[3], yes(status.may_have_applied()), "{debug}");
    }
}
