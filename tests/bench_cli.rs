//! The `bench` and `synthesize` examples as programs: what they print, and what goes wrong is one line and exit code 1.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// An example's binary, which cargo builds before it runs all tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let examples = test.parent().and_then(Path::parent).unwrap().join("examples");
    let path = examples.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not there: run `cargo build --example {name}` first", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny_llama.gguf")
}

/// What a short run prints.
fn printed(arguments: &[&str]) -> String {
    let mut command = example("bench");
    let Output { status, stdout, stderr } =
        command.arg("-m").arg(tiny()).args(["-p", "8", "-n", "4", "-r", "2"]).args(arguments).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[track_caller]
fn fails(mut command: Command, says: &str) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let error = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{error}");
    assert!(stdout.is_empty());
    assert!(error.starts_with("error: ") && error.lines().count() == 1, "{error}");
    assert!(error.contains(says), "{says:?} is not in {error:?}");
}

#[test]
fn a_table_has_a_row_for_each_test_and_number_of_threads() {
    let table = printed(&["-t", "1,2", "-d", "0,16", "--isa", "scalar", "--native"]);
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    assert_eq!(rows[0], ["model", "size", "params", "backend", "threads", "test", "t/s"]);
    let tests: Vec<(&str, &str)> = rows[2..].iter().map(|row| (row[4], row[5])).collect();
    let names = ["pp8", "tg4", "pp8 @ d16", "tg4 @ d16"];
    let want: Vec<(&str, &str)> = ["1", "2"].iter().flat_map(|&threads| names.map(|name| (threads, name))).collect();
    assert_eq!(tests, want);
    assert!(rows[2..].iter().all(|row| row[3] == "scalar native" && row[6].contains(" ± ")), "{table}");
}

#[test]
fn csv_and_json_hold_the_same_fields() {
    let csv = printed(&["-o", "csv"]);
    let head: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    assert!(csv.lines().count() == 3 && csv.lines().skip(1).all(|line| line.split("\",\"").count() == head.len()));
    let json: serde_json::Value = serde_json::from_str(&printed(&["-o", "json"])).unwrap();
    let rows = json.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert!(head.iter().all(|field| row.get(field).is_some()), "{row}");
        assert_eq!(row["samples_ts"].as_array().unwrap().len(), 2);
        assert!(row["avg_ts"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn what_goes_wrong_is_one_line() {
    let bench = |arguments: &[&str]| {
        let mut command = example("bench");
        command.args(arguments);
        command
    };
    fails(bench(&["-m", "/no/such/file"]), "opening");
    let tiny = tiny();
    let tiny = tiny.to_str().unwrap();
    fails(bench(&["-m", tiny, "--isa", "mmx"]), "mmx");
    fails(bench(&["-m", tiny, "-p", "0", "-n", "0"]), "nothing to measure");
    let mut synthesize = example("synthesize");
    synthesize.args(["--shape", "llama-3.2-1b", "--format", "Q9", "-o", "/no/such/file"]);
    fails(synthesize, "Q9");
}
