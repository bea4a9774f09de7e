//! What is written is read again, and nothing that is not.

use proptest::prelude::*;

use super::*;

fn number_of(bytes: &[u8]) -> Result<u64, BodyError> {
    let body = Bytes::copy_from_slice(bytes);
    let mut reader = Reader::new(&body);
    let number = reader.number(Field::Body)?;
    reader.finish().map(|()| number)
}

#[test]
fn numbers_have_one_encoding() {
    let malformed = Err(BodyError::Malformed { field: Field::Body });
    assert_eq!(number_of(&[0x00]), Ok(0));
    assert_eq!(number_of(&[0x80, 0x01]), Ok(128));
    assert_eq!(number_of(&[0x80, 0x00]), malformed);
    let mut largest = [0xFF; 10];
    largest[9] = 0x01;
    assert_eq!(number_of(&largest), Ok(u64::MAX));
    largest[9] = 0x02;
    assert_eq!(number_of(&largest), malformed);
    largest[9] = 0x81;
    assert_eq!(number_of(&largest), malformed);
}

#[test]
fn numbers_of_each_length_are_the_same_behind_and_before_others() {
    let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, u64::MAX >> bit]);
    for number in edges {
        let bits = (u64::BITS - number.leading_zeros()).max(1);
        let groups = (0..bits.div_ceil(7)).map(|n| (number >> (7 * n)) as u8 & 0x7F);
        let mut plain: Vec<u8> = groups.map(|group| group | 0x80).collect();
        *plain.last_mut().unwrap() &= 0x7F;
        let mut writer = Writer::default();
        writer.byte(0xEE);
        writer.number(number);
        assert_eq!(writer.as_slice()[1..], plain, "{number:#x}");
        // The last of a body, and one with others behind it.
        assert_eq!(number_of(&plain), Ok(number));
        let mut longer = plain.clone();
        longer.extend([0x80; 10]);
        let body = Bytes::from(longer);
        let mut reader = Reader::new(&body);
        assert_eq!(reader.number(Field::Body), Ok(number));
        assert_eq!(reader.remaining(), 10);
        // One byte more than needed.
        *plain.last_mut().unwrap() |= 0x80;
        plain.push(0);
        assert_eq!(number_of(&plain), Err(BodyError::Malformed { field: Field::Body }));
        plain.extend([0xFF; 10]);
        assert_eq!(number_of(&plain), Err(BodyError::Malformed { field: Field::Body }));
    }
}

#[test]
fn a_byte_and_two_numbers_are_as_one_after_the_other() {
    let edges = || (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, u64::MAX >> bit]);
    for (first, second) in edges().flat_map(|first| edges().map(move |second| (first, second))) {
        let (mut together, mut apart) = (Writer::default(), Writer::default());
        together.byte_and_numbers(0xA5, first, second);
        apart.byte(0xA5);
        apart.number(first);
        apart.number(second);
        assert_eq!(together.as_slice(), apart.as_slice(), "{first:#x}, {second:#x}");
    }
}

#[test]
fn count_beyond_the_bytes_left_is_refused_before_allocation() {
    let mut writer = Writer::default();
    writer.list_header(1 << 40, true);
    let body = writer.into_bytes();
    let mut reader = Reader::new(&body);
    assert_eq!(reader.users(Field::Owners, usize::MAX), Err(BodyError::Truncated { field: Field::Owners }));
}

#[test]
fn difference_below_zero_is_refused() {
    let mut writer = Writer::default();
    writer.list_header(2, true);
    writer.fixed64(5);
    writer.number(6u64);
    let body = writer.into_bytes();
    let mut reader = Reader::new(&body);
    assert_eq!(reader.entry_ids(Field::EntryIds, 10), Err(BodyError::Malformed { field: Field::EntryIds }));
}

#[test]
fn sorted_users_take_a_byte_each() {
    let users: Vec<UserId> = (1_000_000..1_000_100).map(UserId).collect();
    let mut writer = Writer::default();
    writer.users(&users);
    assert_eq!(writer.into_bytes().len(), 2 + 3 + 99);
}

proptest! {
    #[test]
    fn numbers_round_trip(unsigned: u64, signed: i64) {
        let mut writer = Writer::default();
        writer.number(unsigned);
        writer.signed(signed);
        let body = writer.into_bytes();
    let mut reader = Reader::new(&body);
        prop_assert_eq!(reader.number(Field::Body), Ok(unsigned));
        prop_assert_eq!(reader.signed(Field::Body), Ok(signed));
        prop_assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn id_lists_round_trip_in_any_order(mut ids: Vec<u64>, order in 0..3) {
        match order {
            1 => ids.sort_unstable(),
            2 => ids.sort_unstable_by(|a, b| b.cmp(a)),
            _ => {}
        }
        let users: Vec<UserId> = ids.iter().copied().map(UserId).collect();
        let entries: Vec<EntryId> = ids.iter().copied().map(EntryId).collect();
        let mut writer = Writer::default();
        writer.users(&users);
        writer.entry_ids(&entries);
        let body = writer.into_bytes();
    let mut reader = Reader::new(&body);
        prop_assert_eq!(reader.users(Field::Users, ids.len()), Ok(users));
        prop_assert_eq!(reader.entry_ids(Field::EntryIds, ids.len()), Ok(entries));
        prop_assert_eq!(reader.finish(), Ok(()));
    }
}
