//! Bounds what a connection costs before it has said anything: how many there are, and how long they may be silent.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

use crate::signalling::counters::{Counters, Refusal};

/// The HTTP library looks at this many bytes (the HTTP/2 preface) before its own header timeout begins.
const PREFACE: usize = 24;

/// An acceptor around another one.
#[derive(Clone)]
pub struct Guard<A> {
    inner: A,
    connections: Arc<Semaphore>,
    patience: Duration,
    counters: Arc<Counters>,
}

impl<A> Guard<A> {
    /// Lets `max_connections` be open at one time, each silent for `patience` at most at its beginning.
    pub fn new(
        inner: A,
        max_connections: usize,
        patience: Duration,
        counters: Arc<Counters>,
    ) -> Self {
        Guard {
            inner,
            connections: Arc::new(Semaphore::new(max_connections)),
            patience,
            counters,
        }
    }
}

impl<A, S> Accept<TcpStream, S> for Guard<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
    A::Stream: Send,
    A::Service: Send,
{
    type Stream = Guarded<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            self.counters.count(Refusal::TooManyConnections);
            return Box::pin(async { Err(io::Error::other("too many connections")) });
        };
        // Signalling messages are small and each matters now. A socket that cannot is broken, which shows later.
        let _ = stream.set_nodelay(true);
        let accepting = self.inner.accept(stream, service);
        let patience = self.patience;
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            let start = Start::Awaited {
                bytes: 0,
                deadline: Box::pin(sleep(patience)),
            };
            let guarded = Guarded {
                stream,
                start,
                _permit: permit,
            };
            Ok((guarded, service))
        })
    }
}

/// A connection that counts, and that ends if its beginning does not come.
pub struct Guarded<S> {
    stream: S,
    start: Start,
    _permit: OwnedSemaphorePermit,
}

enum Start {
    Awaited {
        bytes: usize,
        deadline: Pin<Box<Sleep>>,
    },
    Seen,
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Start::Awaited { bytes, deadline } = &mut self.start else {
            return read;
        };
        if read.is_pending() {
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        *bytes += buf.filled().len() - before;
        if *bytes >= PREFACE {
            self.start = Start::Seen;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
