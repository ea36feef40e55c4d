use super::*;

#[derive(Debug, Parser)]
#[command(name = "atoll-test")]
struct Options {
    #[command(flatten)]
    backend: Args,
    #[arg(long, required_unless_present = "print_capabilities")]
    image: Option<String>,
}

fn complaint(args: &[&str]) -> String {
    let args = std::iter::once("atoll-test").chain(args.iter().copied());
    sentence(&Options::try_parse_from(args).unwrap_err().to_string())
}

#[test]
fn a_complaint_is_one_sentence_without_the_usage() {
    let missing = complaint(&["--fd=3"]);
    assert_eq!(missing, "the following required arguments were not provided: --image <IMAGE>");
    let both = complaint(&["--fd=3", "--socket-path=s", "--image=i"]);
    assert_eq!(both, "the argument '--fd <N>' cannot be used with '--socket-path <PATH>'");
    let bad = complaint(&["--fd=x", "--image=i"]);
    assert!(bad.starts_with("invalid value 'x' for '--fd <N>': "), "{bad}");
}

#[test]
fn a_tip_stays_with_its_complaint() {
    let tip = complaint(&["--imag=i"]);
    assert!(tip.starts_with("unexpected argument '--imag' found - "), "{tip}");
    assert!(tip.contains("'--image'"), "{tip}");
}

#[test]
fn capabilities_need_no_other_option() {
    let options = Options::try_parse_from(["atoll-test", "--print-capabilities"]).unwrap();
    assert!(options.backend.print_capabilities && options.image.is_none());
}
