//! Child processes that end with the test, whatever ends it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Lines of output that are kept; the oldest go first.
const KEPT_LINES: usize = 10_000;

/// A running program and what it has written.
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command` with its output collected.
    ///
    /// # Panics
    /// When the program is not there: says which, and that the test needs it.
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("this test needs {name}: {error}; `make test` installs it")
            });
        let lines = Arc::default();
        collect(child.stdout.take(), &lines);
        collect(child.stderr.take(), &lines);
        Process { name, child, lines }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, stdout and stderr as they came.
    pub fn output(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Its exit status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Asks it to end with SIGTERM, and gives its status if it does so in time.
    pub fn terminate(&mut self, within: Duration) -> Option<ExitStatus> {
        if self.exited().is_none() {
            signal("TERM", self.child.id());
        }
        self.wait(within)
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            match self.exited() {
                Some(status) => return Some(status),
                None if Instant::now() >= deadline => return None,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.terminate(Duration::from_secs(5)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let lines = self.output();
            let shown = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- last output of {}:\n{}", self.name, shown.join("\n"));
        }
    }
}

/// Sends a signal by name to one process.
pub fn signal(name: &str, pid: u32) {
    // The shell's own kill: the program of that name is a package of its own.
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid} 2>/dev/null")])
        .status();
}

/// Ends every process that has `mark` in its command line. The mark is unique to its owner, e.g. a temporary folder.
pub fn end_marked(mark: &str) {
    for pid in pids_marked(mark) {
        signal("KILL", pid);
    }
}

/// How many processes have `mark` in their command line.
pub fn marked(mark: &str) -> usize {
    pids_marked(mark).len()
}

fn pids_marked(mark: &str) -> Vec<u32> {
    let command_line_of =
        |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| String::from_utf8_lossy(&command_line_of(*pid)).contains(mark))
        .collect()
}

/// A port that was free a moment ago, on all addresses.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The first of `count` successive UDP ports that were free a moment ago.
pub fn free_udp_ports(count: u16) -> u16 {
    loop {
        let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let first = probe.local_addr().unwrap().port();
        drop(probe);
        let all = (0..count).map(|i| first.checked_add(i));
        let held: Option<Vec<_>> = all
            .map(|port| std::net::UdpSocket::bind(("0.0.0.0", port?)).ok())
            .collect();
        if held.is_some() {
            return first;
        }
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>, lines: &Arc<Mutex<Vec<String>>>) {
    let (Some(pipe), lines) = (pipe, lines.clone()) else {
        return;
    };
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut lines = lines.lock().unwrap();
            if lines.len() == KEPT_LINES {
                lines.remove(0);
            }
            lines.push(line);
        }
    });
}
