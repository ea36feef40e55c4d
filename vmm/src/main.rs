//! The `atoll` command: parse, pick, call.

fn main() {}
