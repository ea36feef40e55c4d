//! Which of a machine's consoles is meant.

use super::*;

fn console(id: &str, port: Option<&str>, to: ConsoleKind) -> ConsoleInfo {
    let path = Some(PathBuf::from(format!("/run/{id}")));
    ConsoleInfo { id: id.to_owned(), port: port.map(str::to_owned), to, path }
}

fn wanted(device: Option<&str>, port: Option<&str>) -> Console {
    let own = |text: Option<&str>| text.map(str::to_owned);
    Console { machine: None, device: own(device), port: own(port), attach: None }
}

#[test]
fn unless_it_is_said_the_first_that_can_be_attached_to_is_meant() {
    let consoles = [
        console("log", None, ConsoleKind::File),
        console("a", None, ConsoleKind::Socket),
        console("a", Some("agent"), ConsoleKind::Socket),
        console("b", None, ConsoleKind::Pty),
    ];
    assert_eq!(choose(&wanted(None, None), &consoles), Some(&consoles[1]));
    assert_eq!(choose(&wanted(Some("b"), None), &consoles), Some(&consoles[3]));
    assert_eq!(choose(&wanted(None, Some("agent")), &consoles), Some(&consoles[2]));
    assert_eq!(choose(&wanted(Some("b"), Some("agent")), &consoles), None);
    // Better an explanation than another's console.
    assert_eq!(choose(&wanted(Some("log"), None), &consoles), Some(&consoles[0]));
}

#[test]
fn what_there_is_not_is_named_with_what_there_is() {
    let consoles =
        [console("a", None, ConsoleKind::Stdio), console("a", Some("p"), ConsoleKind::Pty)];
    let error = missing("/c".into(), &wanted(Some("b"), Some("q")), &consoles).to_string();
    assert_eq!(
        error,
        "the machine at /c has no port q of console b; it has console a, port p of console a"
    );
    assert!(missing("/c".into(), &wanted(None, None), &[]).to_string().contains("--attach"));
    assert!(obstacle(&consoles[0]).contains("--console socket=PATH"));
}

#[test]
fn an_answer_of_an_older_or_a_younger_machine_is_read() {
    for text in ["{}", r#"{"state": "running", "consoles": [], "moons": 2}"#] {
        let answer: Answer = serde_json::from_str(text).unwrap();
        assert!(answer.consoles.is_empty());
    }
}
