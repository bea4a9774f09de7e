//! Owns the tests of the settings.

use std::collections::BTreeSet;

use super::*;

fn flags(args: &[&str]) -> ConfigFlags {
    FlagsOnly::try_parse_from(std::iter::once(&"fanfold").chain(args)).unwrap().flags
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn every_key_has_a_flag_and_every_flag_a_key() {
    let keys: BTreeSet<String> = table(&Config::every_key()).keys().cloned().collect();
    let command = FlagsOnly::command();
    let ids: BTreeSet<String> = command.get_arguments().map(|a| a.get_id().to_string()).collect();
    assert_eq!(keys, ids);
    for arg in command.get_arguments() {
        assert_eq!(arg.get_long().unwrap().replace('-', "_"), arg.get_id().as_str());
    }
}

#[test]
fn printed_default_is_the_default_with_a_comment_on_each_key() {
    let text = Config::default_file();
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), Config::default());
    let set = table(&Config::default());
    for key in table(&Config::every_key()).keys() {
        let mark = if set.contains_key(key) { "" } else { "# " };
        let at = text.find(&format!("\n{mark}{key} = ")).unwrap_or_else(|| panic!("{key} is missing"));
        let comment = text[..at].rsplit('\n').next().unwrap();
        assert!(comment.len() > 20 && comment.starts_with("# "), "{key} has no comment");
    }
    assert!(text.contains("\n# partitions = 16\n"), "{text}");
    let unset = ["partitions", "advertise", "peer_advertise"];
    let every = unset.iter().fold(text, |text, key| text.replace(&format!("# {key} ="), &format!("{key} =")));
    assert_eq!(toml::from_str::<Config>(&every).unwrap(), Config::every_key());
}

#[test]
fn flags_win_over_the_file_and_the_file_over_the_defaults() {
    let file = file("partitions = 4\nconnections_max = 7\n");
    let config = Config::load(Some(file.path()), &flags(&["--partitions", "8"])).unwrap();
    assert_eq!((config.partitions, config.connections_max), (Some(8), 7));
    assert_eq!(config.listen, Config::default().listen);
}

#[test]
fn unknown_key_is_refused_by_name() {
    let file = file("partition_count = 4\n");
    let error = Config::load(Some(file.path()), &ConfigFlags::default()).unwrap_err().to_string();
    assert!(error.contains("partition_count"), "{error}");
}

#[test]
fn off_loopback_needs_the_insecure_flag_on_both_ports() {
    for key in ["--listen", "--http", "--peer-listen"] {
        for address in ["0.0.0.0:7117", "192.0.2.1:1", "[::]:7117"] {
            let open = Config::load(None, &flags(&[key, address])).unwrap();
            assert!(matches!(open.check(), Err(ConfigError::OffLoopback { .. })), "{key} {address}");
            let named = flags(&[key, address, "--insecure-listen-without-tls"]);
            Config::load(None, &named).unwrap().check().unwrap();
        }
    }
    Config::load(None, &flags(&["--listen", "[::1]:0", "--http", "off"])).unwrap().check().unwrap();
}

#[test]
fn node_of_a_cluster_needs_an_address_for_the_others() {
    for key in ["--join", "--form"] {
        let alone = Config::load(None, &flags(&[key, "a:7117,b:7117"])).unwrap();
        assert!(matches!(alone.check(), Err(ConfigError::NoPeerAddress { .. })), "{key}");
        let named = flags(&[key, "a:7117,b:7117", "--peer-listen", "127.0.0.1:7119"]);
        let config = Config::load(None, &named).unwrap();
        config.check().unwrap();
        assert_eq!(config.join.len() + config.form.len(), 2);
    }
    let nowhere = flags(&["--join", "a", "--peer-listen", "127.0.0.1:7119"]);
    let nowhere = Config::load(None, &nowhere).unwrap().check();
    assert!(matches!(nowhere, Err(ConfigError::Advertised { key: "join", .. })), "{nowhere:?}");
    let list = file("form = [\"a:1\", \"b:1\"]\npeer_listen = \"127.0.0.1:0\"\n");
    let list = Config::load(Some(list.path()), &ConfigFlags::default()).unwrap();
    assert_eq!(list.form, ["a:1", "b:1"]);
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    let partitions = Config { partitions: Some(12), ..Config::default() };
    assert!(matches!(partitions.check(), Err(ConfigError::Partitions { got: 12 })));
    let replicas = Config { replicas: 2, ..Config::default() };
    assert!(matches!(replicas.check(), Err(ConfigError::Replicas { got: 2 })));
    let frame = Config { frame_bytes_max: 1, ..Config::default() };
    assert!(frame.check().unwrap_err().to_string().starts_with("frame_bytes_max is 1"));
    let segment = Config { log_segment_bytes: (8 << 20) - 1, ..Config::default() };
    assert!(segment.check().unwrap_err().to_string().contains("between 8388608 and"));
    Config { log_segment_bytes: 8 << 20, ..Config::default() }.check().unwrap();
}

#[test]
fn number_of_partitions_is_set_only_by_who_names_it() {
    assert_eq!(Config::load(None, &flags(&[])).unwrap().partitions, None);
    assert_eq!(Config::load(None, &flags(&["--partitions", "16"])).unwrap().partitions, Some(16));
    let named = file("partitions = 16\n");
    assert_eq!(Config::load(Some(named.path()), &flags(&[])).unwrap().partitions, Some(16));
}
