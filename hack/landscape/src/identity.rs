//! Which process is which: a process id and the kernel's start time for it, so a recycled id is never mistaken for ours.
//! Between look and signal a pidfd holds the identity fast.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Result};
use crate::wait::{self, Seen};

/// A process by an identity that the kernel never gives twice in one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks between boot and the start of the process.
    started: u64,
    /// The kernel's id of the boot.
    boot: String,
}

impl Identity {
    /// The identity of the process that has this id now, if it has not ended.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (ended, started) = ended_and_start(&stat)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        (!ended).then(|| Self { pid, started, boot: boot.trim().to_owned() })
    }

    /// Whether this very process still runs.
    pub(crate) fn alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal to this very process; does nothing when it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        if !self.alive() {
            return Ok(());
        }
        match rustix::process::pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(std::io::Error::from(error)).doing(|| format!("signal process {}", self.pid)),
        }
    }

    /// Asks the process to end, and ends it when it has not after `grace`.
    pub(crate) async fn end(&self, grace: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        if self.gone(grace.as_secs()).await.is_ok() {
            return Ok(());
        }
        self.signal(Signal::KILL)?;
        self.gone(10).await
    }

    async fn gone(&self, seconds: u64) -> Result<()> {
        wait::until(&format!("the end of process {}", self.pid), seconds, || async {
            Ok(if self.alive() { Seen::NotYet("still running".to_owned()) } else { Seen::Yes(()) })
        })
        .await
    }
}

/// Whether the process has ended, and its start time, from `/proc/PID/stat`; the program's name in it may hold spaces
/// and parentheses.
fn ended_and_start(stat: &str) -> Option<(bool, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // proc(5): the state is field 3, the number of threads field 20, the start time field 22.
    let state = fields.next()?;
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    // A first thread that has ended while others still do holds the sockets open.
    Some((matches!(state, "Z" | "X") && threads <= 1, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_move_the_fields() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        assert_eq!(Some((false, 987_654)), ended_and_start(stat));
    }

    #[test]
    fn a_process_has_ended_when_its_last_thread_has() {
        let zombie = "42 (etcd) Z 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        assert_eq!(Some((true, 987_654)), ended_and_start(zombie));
        let ending = zombie.replace("20 0 1 0", "20 0 7 0");
        assert_eq!(Some((false, 987_654)), ended_and_start(&ending));
    }

    #[tokio::test]
    async fn a_recycled_process_id_is_not_ours() {
        let mut child = tokio::process::Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
        let sleeper = Identity::of(child.id().unwrap() as i32).unwrap();
        let earlier = Identity { started: sleeper.started - 1, ..sleeper.clone() };
        earlier.end(Duration::from_secs(1)).await.unwrap();
        assert!(sleeper.alive(), "a process of the same id and another start time was ended");
        sleeper.signal(Signal::KILL).unwrap();
        child.wait().await.unwrap();
        assert!(!sleeper.alive());
    }
}
