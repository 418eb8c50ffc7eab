//! A network namespace, held by a thread that lives in it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpStream};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with loopback. It goes with its thread and the last process that was started in it.
pub struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    task: String,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// # Panics
    /// When this user may not make one.
    pub fn new() -> Self {
        let (jobs, work) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            enter_new();
            command("ip", &["link", "set", "lo", "up"]);
            let thread = std::fs::read_link("/proc/thread-self").expect("/proc is there");
            let task = thread.file_name().expect("an id").to_string_lossy();
            tell.send(task.into_owned()).expect("somebody waits");
            work.iter().for_each(|job| job());
        });
        let task = told.recv().expect("the thread says why it cannot");
        Namespace {
            jobs: Some(jobs),
            task,
            thread: Some(thread),
        }
    }

    /// Id of the thread that lives in it, by which `ip` knows it.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// Runs `work` inside: sockets that it opens and processes that it starts stay inside. Blocks until it is done.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job: Job = Box::new(move || {
            let _ = tell.send(catch_unwind(AssertUnwindSafe(work)));
        });
        let jobs = self.jobs.as_ref().expect("it is there until it is dropped");
        jobs.send(job).expect("the thread runs");
        match told.recv().expect("the thread answers") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// An address of the caller's own namespace that leads to a TCP port on the loopback of this one, as long as the
    /// runtime lives.
    pub async fn doorway(self: &Arc<Self>, port: u16) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Ok((mut outer, _)) = listener.accept().await {
                let Some(inside) = inside.upgrade() else {
                    return;
                };
                let connect = move || {
                    inside.run(move || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
                };
                tokio::spawn(async move {
                    // Nobody listens yet: the other side sees its connection close, and tries again.
                    let Ok(Ok(stream)) = tokio::task::spawn_blocking(connect).await else {
                        return;
                    };
                    stream.set_nonblocking(true).unwrap();
                    let mut inner = TcpStream::from_std(stream).unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                });
            }
        });
        address
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Moves this thread into a new namespace: that of a process that exists only meanwhile.
fn enter_new() {
    let mut holder = Command::new("unshare")
        .args(["--net", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs unshare (util-linux); `make test` installs it");
    let mut input = holder.stdin.take().expect("piped");
    let mut output = holder.stdout.take().expect("piped");
    // Once it echoes, it is inside.
    let echoed = input
        .write_all(b".")
        .and_then(|()| output.read_exact(&mut [0]));
    echoed.expect("this user may make network namespaces (see tests/in-namespace)");
    let place = File::open(format!("/proc/{}/ns/net", holder.id())).expect("it runs");
    let moved = move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network));
    moved.expect("this user may enter network namespaces");
    drop(input);
    holder.wait().expect("it ends with its input");
}

/// Runs a program in the namespace of this thread; what it has written.
///
/// # Panics
/// When it fails.
pub(super) fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("this test needs {program}: {error}; `make test` installs it")
    });
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
