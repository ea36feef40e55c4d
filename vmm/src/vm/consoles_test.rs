//! Pseudo-terminals without a link, named by their processes.

use std::path::PathBuf;

use super::*;

fn pty(id: &str, port: Option<&str>, path: Option<&str>) -> ConsoleInfo {
    let (port, path) = (port.map(str::to_owned), path.map(PathBuf::from));
    ConsoleInfo { id: id.to_owned(), port, to: ConsoleKind::Pty, path }
}

fn terminal(port: Option<&str>, path: &str) -> Terminal {
    Terminal { port: port.map(str::to_owned), path: path.into() }
}

#[test]
fn each_process_is_asked_once_and_names_its_own_terminals_only() {
    let consoles = [
        pty("a", None, Some("/link")),
        pty("a", Some("p"), None),
        pty("a", Some("q"), None),
        pty("b", None, None),
        pty("c", None, Some("/other")),
    ];
    let mut asked = Vec::new();
    let named = name_terminals(&consoles, |id| {
        asked.push(id.to_owned());
        // Its console has a link, and it has no port r.
        let ports = [(None, "/dev/pts/1"), (Some("q"), "/dev/pts/2"), (Some("r"), "/dev/pts/3")];
        (id == "a").then(|| ports.map(|(port, path)| terminal(port, path)).into())
    });
    assert_eq!(asked, ["a", "b"]);
    let mut expected = consoles.to_vec();
    expected[2].path = Some("/dev/pts/2".into());
    assert_eq!(named, expected);
}
