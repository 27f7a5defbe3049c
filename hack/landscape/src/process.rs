//! Long-running components: started once, recorded by identity, ended by exactly that identity.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::error::{Doing, Error, Result};
use crate::identity::Identity;
use crate::place::write;
use crate::wait::{self, Seen};

/// Environment variable that every component and its children carry; its value is the folder of records.
const MARK: &str = "SHOOT_BACKUP_RECORDS";
/// How long a component may take to end before it is started anew.
const RESTART_GRACE: Duration = Duration::from_secs(5);
/// Logs larger than this are moved aside when their component starts again.
const LARGE_LOG: u64 = 16 << 20;
/// As much of a log as an error shows.
const TAIL_LINES: usize = 12;
const TAIL_WIDTH: usize = 400;

/// How a component is started.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    program: PathBuf,
    argv: Vec<OsString>,
    /// Content of the configuration file, when there is one.
    configuration: String,
    environment: BTreeMap<String, OsString>,
}

impl Start {
    pub(crate) fn new(program: impl AsRef<Path>) -> Self {
        let program = program.as_ref().to_owned();
        Self { argv: vec![program.clone().into()], program, configuration: String::new(), environment: BTreeMap::new() }
    }

    /// Differs when the arguments, the environment, the configuration or the program itself do.
    fn fingerprint(&self) -> String {
        let built = fs::metadata(&self.program).and_then(|file| file.modified()).ok();
        hex::encode(Sha256::digest(format!(
            "{:?} {:?} {:?} {built:?}",
            self.argv, self.environment, self.configuration
        )))
    }

    pub(crate) fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.argv.push(argument.into());
        self
    }

    pub(crate) fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.argv.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Writes the configuration file that the arguments name; another content makes the component start anew.
    pub(crate) fn configured(mut self, path: &Path, content: String) -> Result<Self> {
        write(path, &content)?;
        self.configuration = content;
        Ok(self)
    }

    /// Starts the program through another one that ends in `exec`, such as `nsenter`.
    pub(crate) fn through(mut self, argv: &[String]) -> Self {
        self.argv.splice(0..0, argv.iter().map(OsString::from));
        self
    }
}

/// What is remembered of a component that was started.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    identity: Identity,
    /// Empty in records of before fingerprints: differs from all.
    #[serde(default)]
    fingerprint: String,
}

/// The components of one landscape.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    records: PathBuf,
    logs: PathBuf,
}

impl Processes {
    pub(crate) fn new(records: PathBuf, logs: PathBuf) -> Self {
        Self { records, logs }
    }

    /// The component's process, when it runs.
    pub(crate) fn running(&self, component: &str) -> Option<Identity> {
        self.running_record(component).map(|record| record.identity)
    }

    fn running_record(&self, component: &str) -> Option<Record> {
        let text = fs::read(self.record(component)).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        record.identity.alive().then_some(record)
    }

    /// Starts the component unless it runs; starts it anew when it was started otherwise or from another build.
    pub(crate) async fn ensure(&self, component: &str, start: &Start) -> Result<Identity> {
        let fingerprint = start.fingerprint();
        if let Some(record) = self.running_record(component) {
            if record.fingerprint == fingerprint {
                return Ok(record.identity);
            }
            self.stop(component, RESTART_GRACE).await?;
        }
        for folder in [&self.records, &self.logs] {
            fs::create_dir_all(folder).doing(|| format!("create {}", folder.display()))?;
        }
        let log = self.open_log(component)?;
        let errors = log.try_clone().doing(|| format!("open the log of {component}"))?;
        // A session of its own: a signal meant for the terminal's programs does not reach it.
        let child = Command::new("setsid")
            .args(&start.argv)
            .env_clear()
            .env(MARK, &self.records)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
            .envs(&start.environment)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .doing(|| format!("start {component}"))?;
        let pid = child.id().unwrap_or_default() as i32;
        let identity = Identity::of(pid).ok_or_else(|| self.failure(component, "ended at once"))?;
        let path = self.record(component);
        let record = Record { identity, fingerprint };
        let text = serde_json::to_vec(&record).unwrap_or_default();
        fs::write(&path, text).doing(|| format!("write {}", path.display()))?;
        Ok(record.identity)
    }

    /// Ends the component if it runs, and forgets it.
    pub(crate) async fn stop(&self, component: &str, grace: Duration) -> Result<()> {
        if let Some(identity) = self.running(component) {
            identity.end(grace).await?;
        }
        let record = self.record(component);
        match fs::remove_file(&record) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("remove {}", record.display()))
            }
            _ => Ok(()),
        }
    }

    /// Processes that carry the landscape's mark and are in no record: the starter was killed before it could write one.
    pub(crate) fn strays(&self) -> Vec<Identity> {
        let mark = [MARK.as_bytes(), b"=", self.records.as_os_str().as_encoded_bytes()].concat();
        let known: Vec<_> = self.recorded().iter().filter_map(|component| self.running(component)).collect();
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark)
        })
        .filter_map(Identity::of)
        .filter(|identity| !known.contains(identity))
        .collect()
    }

    /// Names of all components that were started and not stopped.
    pub(crate) fn recorded(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.records) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.flatten().filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())).collect();
        names.sort();
        names
    }

    /// The component's log.
    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.logs.join(format!("{component}.log"))
    }

    /// An error that shows the end of the component's log.
    pub(crate) fn failure(&self, component: &str, reason: &str) -> Error {
        let log = self.log(component);
        Error::Component { component: component.to_owned(), reason: reason.to_owned(), tail: tail(&log), log }
    }

    /// Waits for `ready` to hold while the component runs; its end or the deadline is an error with the log's end.
    pub(crate) async fn ready<F>(&self, component: &str, seconds: u64, mut ready: impl FnMut() -> F) -> Result<()>
    where
        F: Future<Output = Option<String>>,
    {
        let outcome = wait::until(&format!("readiness of {component}"), seconds, || {
            let running = self.running(component).is_some();
            let look = ready();
            async move {
                if !running {
                    return Err(self.failure(component, "ended"));
                }
                Ok(look.await.map_or(Seen::Yes(()), Seen::NotYet))
            }
        })
        .await;
        match outcome {
            Err(Error::Timeout { last, .. }) => {
                let seen = last.map(|last| format!(" ({last})")).unwrap_or_default();
                Err(self.failure(component, &format!("was not ready within {seconds} s{seen}")))
            }
            other => other,
        }
    }

    fn record(&self, component: &str) -> PathBuf {
        self.records.join(format!("{component}.json"))
    }

    fn open_log(&self, component: &str) -> Result<File> {
        let path = self.log(component);
        if fs::metadata(&path).is_ok_and(|log| log.len() > LARGE_LOG) {
            let aside = path.with_extension("log.old");
            fs::rename(&path, &aside).doing(|| format!("move {} aside", path.display()))?;
        }
        OpenOptions::new().create(true).append(true).open(&path).doing(|| format!("open {}", path.display()))
    }
}

/// The last lines of a log, read from its end.
fn tail(log: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(8 << 10)))?;
        let mut bytes = Vec::new();
        file.take(8 << 10).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    // Stack traces come as one long line.
    let cut: Vec<_> = last.iter().map(|line| &line[..line.floor_char_boundary(TAIL_WIDTH)]).collect();
    cut.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes(folder: &Path) -> Processes {
        Processes::new(folder.join("processes"), folder.join("logs"))
    }

    #[tokio::test]
    async fn a_component_is_started_once_and_ended_by_its_identity() {
        let folder = tempfile::tempdir().unwrap();
        let processes = processes(folder.path());
        let start = Start::new("sleep").arg("600");
        let first = processes.ensure("sleeper", &start).await.unwrap();
        assert_eq!(first, processes.ensure("sleeper", &start).await.unwrap());
        processes.stop("sleeper", Duration::from_secs(5)).await.unwrap();
        assert!(!first.alive());
        assert!(processes.recorded().is_empty());
    }

    #[tokio::test]
    async fn a_component_with_other_arguments_is_started_anew() {
        let folder = tempfile::tempdir().unwrap();
        let processes = processes(folder.path());
        let first = processes.ensure("sleeper", &Start::new("sleep").arg("600")).await.unwrap();
        let second = processes.ensure("sleeper", &Start::new("sleep").arg("601")).await.unwrap();
        assert!(!first.alive());
        assert!(second.alive());
        processes.stop("sleeper", Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn a_process_whose_record_is_lost_is_still_found() {
        let folder = tempfile::tempdir().unwrap();
        let processes = processes(folder.path());
        let sleeper = processes.ensure("sleeper", &Start::new("sleep").arg("600")).await.unwrap();
        // The mark is in place once the kernel runs the new program.
        sleeper_runs(&sleeper).await;
        assert!(processes.strays().is_empty());
        fs::remove_file(processes.record("sleeper")).unwrap();
        assert_eq!(vec![sleeper.clone()], processes.strays());
        sleeper.end(Duration::from_secs(5)).await.unwrap();
    }

    async fn sleeper_runs(identity: &Identity) {
        let comm = format!("/proc/{}/comm", identity.pid);
        wait::until("the start of sleep", 10, || async {
            let name = fs::read_to_string(&comm).unwrap_or_default();
            Ok(if name.trim() == "sleep" { Seen::Yes(()) } else { Seen::NotYet(name) })
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_component_that_ends_shows_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let processes = processes(folder.path());
        let start = Start::new("sh").args(["-c", "echo no such flag; sleep 0.2; exit 3"]);
        processes.ensure("broken", &start).await.unwrap();
        let error = processes.ready("broken", 20, || async { Some("not listening".to_owned()) }).await.unwrap_err();
        assert!(error.to_string().contains("no such flag"), "{error}");
        assert!(error.to_string().contains("broken.log"), "{error}");
    }
}
