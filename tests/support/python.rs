//! The participant in `tests/py/client.py` (aiortc), started and read.

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::eventually;
use super::process::Process;

/// A running aiortc client. Dropping it ends it.
pub struct PythonClient {
    process: Process,
}

impl PythonClient {
    /// Starts it against the socket at `url` with further `arguments`, see `client.py --help`.
    ///
    /// # Panics
    /// When its environment has not been made.
    pub fn start(url: &str, arguments: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/pyenv/bin/python");
        assert!(
            python.exists(),
            "this test needs aiortc: `make target/pyenv/ready` installs it"
        );
        let mut command = Command::new(python);
        command
            .arg(root.join("tests/py/client.py"))
            .args(["--url", url])
            .args(arguments);
        PythonClient {
            process: Process::start(command),
        }
    }

    /// Everything it has reported so far.
    pub fn events(&self) -> Vec<Value> {
        let lines = self.process.output();
        lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The latest event of a kind.
    pub fn last(&self, event: &str) -> Option<Value> {
        self.events()
            .into_iter()
            .rev()
            .find(|e| e["event"] == event)
    }

    /// Waits for an event of a kind that fulfils `condition`.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn wait_for(
        &self,
        event: &str,
        within: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(&format!("{event} of aiortc"), within, async || {
            match self.last(event) {
                Some(found) if condition(&found) => Ok(found),
                other => Err(other),
            }
        })
        .await
    }

    /// Waits for its end; whether it was in order.
    pub fn ended(&mut self, within: Duration) -> bool {
        self.process
            .wait(within)
            .is_some_and(|status| status.success())
    }
}

/// Of a `stats` event: the track of one kind that has frames.
pub fn track_of<'a>(stats: &'a Value, kind: &str) -> Option<&'a Value> {
    let tracks = stats["tracks"].as_array()?;
    tracks
        .iter()
        .find(|t| t["kind"] == kind && t["frames"].as_u64() > Some(0))
}
