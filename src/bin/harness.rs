//! Compares whole builds with those of other builders. See `kanna::harness`.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    kanna::harness::harness(env::args_os())
}
