//! docs/security.md says what is so: every error is in its table, every test that it names is there, and the crate `rsa` only encrypts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use control_api::ErrorKind;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The rows of the last table: an error and its tests.
fn refusals() -> BTreeMap<String, Vec<String>> {
    let document = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let (_, table) = document.split_once("## Every refusal").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, error, _, tests, _] = cells[..] else { panic!("not three cells: {row}") };
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        (names(error).pop().unwrap(), names(tests))
    })
    .collect()
}

/// Sources below a folder with one of these endings, without what is built.
fn sources(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | "node_modules" | "dist" | "corpus") && !name.starts_with('.') {
                sources(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

/// The names of all tests: functions after a line with `#[test]`, `#[tokio::test...]`, or within `proptest!`; `test_...` of Python.
fn tests() -> BTreeSet<String> {
    let mut paths = Vec::new();
    sources(&root(), &[".rs", ".py"], &mut paths);
    let mut names = BTreeSet::new();
    for path in paths {
        let text = std::fs::read_to_string(path).unwrap();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            let function = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
            if let Some(name) = function.filter(|_| is_test) {
                names.extend(name.split('(').next().map(str::to_owned));
                is_test = false;
            } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(name) = line.strip_prefix("def test_") {
                names.extend(name.split('(').next().map(|name| format!("test_{name}")));
            }
        }
    }
    names
}

#[test]
fn every_error_has_a_row_in_the_threat_model_and_every_row_a_test_that_exists() {
    let (refusals, tests) = (refusals(), tests());
    for kind in ErrorKind::ALL {
        assert!(refusals.contains_key(kind.name()), "docs/security.md has no row for {}", kind.name());
    }
    for (error, named) in &refusals {
        assert!(ErrorKind::from_name(error).is_some(), "docs/security.md has a row for {error}, which is no error");
        assert!(!named.is_empty(), "no test tries {error}");
        for test in named {
            assert!(tests.contains(test), "docs/security.md names the test {test} for {error}, and there is none");
        }
    }
    assert!(!tests.contains("no_such_test") && tests.len() > 100);
}

#[test]
fn the_crate_rsa_only_encrypts() {
    let mut paths = Vec::new();
    sources(&root(), &[".rs"], &mut paths);
    let uses = |text: &str| text.contains("use rsa::") || text.contains(" rsa::") || text.contains("(rsa::");
    let users: Vec<_> = paths
        .into_iter()
        .filter(|path| !path.ends_with(file!().rsplit('/').next().unwrap()))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .filter(|text| uses(text))
        .collect();
    assert!(!users.is_empty());
    // In two words, so that this file does not contain what it looks for.
    let private = [["RsaPrivate", "Key"].concat(), ["rsa::", "pss"].concat(), ["rsa::", "pkcs1v15"].concat()];
    for name in &private {
        assert!(users.iter().all(|text| !text.contains(name)), "RUSTSEC-2023-0071: {name} of the crate rsa");
    }
}
