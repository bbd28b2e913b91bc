//! Builds an image and pushes it. See `kanna::cli`.

use std::env;
use std::process::ExitCode;

use kanna::cli;

fn main() -> ExitCode {
    cli::executor(env::args_os(), |name| env::var_os(name))
}
