//! The program started again, to be the world around a command.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::order::{Order, Report};
use super::points::MountPoints;
use super::{Ended, INSIDE, OUTSIDE, capabilities, mounts};
use crate::rootfs::Root;
use crate::run::command::exit_of;
use crate::run::supervisor::STOP_SIGNALS;
use crate::run::{self, Error, Supervisor, user_namespace};
use crate::sys::nix::sched::{CloneFlags, unshare};
use crate::sys::nix::unistd::sethostname;
use crate::sys::{Errno, process, signals};

/// What a helper ends with when it could not even say what went wrong.
const CODE_SILENT: u8 = 1;

/// Does what the helper named by the first of `arguments` is there for. Those around a command get the descriptor of the
/// pipe for their report as the second, and the order as standard input.
pub fn helper(arguments: &[std::ffi::OsString]) -> ExitCode {
    let name = arguments.first().map(|name| name.as_os_str()).unwrap_or_default();
    if name == user_namespace::MAPPER {
        return user_namespace::mapper(arguments);
    }
    let number = arguments.get(1).and_then(|number| number.to_str()?.parse().ok());
    let Some(mut report) = number.and_then(process::inherited) else { return ExitCode::from(CODE_SILENT) };
    // whoever waits for us has gone: there is nobody to build for
    let _ = process::set_parent_process_death_signal(Some(process::Signal::KILL));
    if name == OUTSIDE {
        return match outside(number.unwrap_or_default()) {
            Ok(code) => ExitCode::from(code),
            Err(error) => tell(&mut report, &Report::of(&error)),
        };
    }
    match inside() {
        Ok(ended) => tell(&mut report, &Report::ended(ended)),
        Err(error) => tell(&mut report, &Report::of(&error)),
    }
}

fn tell(report: &mut File, said: &Report) -> ExitCode {
    match report.write_all(&said.to_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(CODE_SILENT),
    }
}

/// Makes the namespaces and waits for the helper in them.
fn outside(report: i32) -> Result<u8, Error> {
    let failed = |action: &'static str| move |source: io::Error| Error::Isolate { action, source };
    // they come to the helper inside as well, who passes them on; this one only has to live
    let (_signals, writer) = io::pipe().map_err(failed("make a pipe"))?;
    let _caught = signals::catch(&STOP_SIGNALS, OwnedFd::from(writer)).map_err(failed("catch signals"))?;
    let namespaces =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(namespaces).map_err(|errno| failed("make namespaces")(errno.into()))?;
    let mut inside = Command::new("/proc/self/exe");
    inside.arg0(INSIDE).arg(report.to_string()).env_clear();
    Ok(exit_of(inside.status().map_err(failed("start process 1"))?).code())
}

/// Makes the world and runs the command in it.
fn inside() -> Result<Ended, Error> {
    let failed = |action: &'static str| move |source: io::Error| Error::Isolate { action, source };
    let mut bytes = Vec::new();
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed("read the order"))?);
    stdin.rewind().and_then(|()| stdin.read_to_end(&mut bytes)).map_err(failed("read the order"))?;
    let order = Order::parse(&bytes).map_err(|error| failed("read the order")(error.into()))?;
    let supervisor = Supervisor::start(None, |_| ())?;
    match process::join_new_session_keyring() {
        // a kernel without keys
        Ok(()) | Err(Errno::NOSYS) => {}
        Err(errno) => return Err(failed("leave the session's keys")(errno.into())),
    }
    sethostname(&order.host_name).map_err(|errno| failed("name the host")(errno.into()))?;
    mounts::enter(&order).map_err(|source| Error::World(Box::new(source)))?;
    let points = MountPoints::note().map_err(failed("read the mounts"))?;
    capabilities::keep_dockers().map_err(failed("give up capabilities"))?;
    let root = Root::open(Path::new("/")).map_err(|error| failed("open the root")(error.source))?;
    let exit = run::run(&order.command(), &root, &supervisor)?;
    Ok(Ended { exit, moved: points.moved().map_err(failed("read the mounts"))? })
}
