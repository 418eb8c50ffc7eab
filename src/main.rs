//! The `talksy-unit` command.

fn main() {}
