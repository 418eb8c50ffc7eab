//! A server as a process: started, measured, ended.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Loaded machines start slowly.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A process that ends with its owner.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let started = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Process {
            child: started.unwrap_or_else(|error| panic!("{command:?} does not start: {error}")),
        }
    }

    /// CPU time of all its threads so far, those that have ended not counted, in µs.
    pub fn cpu_us(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let nanos = tasks.expect("it runs").flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        nanos.sum::<u64>() as f64 / 1e3
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(
            Instant::now() < give_up,
            "{what} did not come in {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
