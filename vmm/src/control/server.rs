//! The thread that serves the control socket: it sleeps until a client, an event or a finished
//! action wakes it, and never waits for any of them.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::api::{Wish, wish};
use super::{Action, EventLog, Machine, Outcome, Refusal, Socket};
use crate::irq;
use atoll_http::{self as http, Clients, Connection, Key, Phase, Request, Status, Unserved};

/// The most actions at once, those of clients that have left included.
const MAX_ACTIONS: usize = 8;
/// How long clients have at the end to read what is on its way.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The control socket can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An eventfd.
    #[error("can't serve the control socket: no eventfd")]
    Event(#[source] io::Error),
    /// The thread.
    #[error("can't start the thread of the control socket")]
    Thread(#[source] io::Error),
}

/// A control socket that is served. Dropping it ends that, and removes the socket.
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told from outside.
struct Shared {
    wake: irq::Event,
    ending: AtomicBool,
}

impl Server {
    /// Serves `socket` on a thread of its own.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(
        socket: Socket,
        machine: Arc<dyn Machine>,
        events: Arc<EventLog>,
    ) -> Result<Self, ServerError> {
        let wake = irq::Event::new().map_err(ServerError::Event)?;
        let shared = Arc::new(Shared { wake, ending: AtomicBool::new(false) });
        let (sender, finished) = channel();
        let worker = Worker {
            socket,
            machine,
            events,
            shared: Arc::clone(&shared),
            clients: Clients::default(),
            actions: 0,
            sender,
            finished,
        };
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || worker.run())
            .map_err(ServerError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.wake.signal();
        if let Some(thread) = self.thread.take() {
            // If it panicked, that is on standard error already.
            let _ended = thread.join();
        }
    }
}

type Finished = (Key, Result<Outcome, Refusal>);

struct Worker {
    socket: Socket,
    machine: Arc<dyn Machine>,
    events: Arc<EventLog>,
    shared: Arc<Shared>,
    clients: Clients,
    /// How many actions are being done.
    actions: usize,
    sender: Sender<Finished>,
    finished: Receiver<Finished>,
}

impl Worker {
    fn run(mut self) {
        while !self.shared.ending.load(Ordering::SeqCst) {
            let ready = self.sleep(None);
            self.accept();
            self.turn(&ready);
        }
        // What was published before the end is still for those who follow.
        let end = Instant::now() + LAST_WORDS;
        self.turn(&[]);
        while Instant::now() < end && self.clients.is_owed() {
            let ready = self.sleep(Some(end));
            self.turn(&ready);
        }
    }

    /// Once around: finished actions, clients, events, deadlines.
    fn turn(&mut self, ready: &[(Key, PollFlags)]) {
        self.shared.wake.drain();
        self.events.hear();
        while let Ok((key, result)) = self.finished.try_recv() {
            self.actions = self.actions.saturating_sub(1);
            self.finish(key, result);
        }
        for (key, how) in ready {
            self.hear(*key, *how);
        }
        self.tell_followers();
        self.clients.settle();
    }

    /// Sleeps until there is something to do; the clients that did something.
    fn sleep(&self, until: Option<Instant>) -> Vec<(Key, PollFlags)> {
        let others = [self.shared.wake.as_fd(), (*self.events).as_fd()];
        self.clients.sleep(Some(self.socket.as_fd()), &others, until)
    }

    fn accept(&mut self) {
        if let Err(error) = self.clients.accept(|| self.socket.accept()) {
            tracing::warn!("the control socket can't take one more client: {error}");
        }
    }

    /// Takes what a client has sent, and answers what can be answered.
    fn hear(&mut self, key: Key, how: PollFlags) {
        self.clients.hear(key, how);
        self.serve(key);
        self.clients.dismiss_if_done(key);
    }

    /// Answers the requests that have come, until one has to wait for its answer.
    fn serve(&mut self, key: Key) {
        while let Some(connection) = self.clients.get_mut(key) {
            match connection.take_request() {
                Ok(None) => return,
                Ok(Some(request)) => self.grant(key, &request),
                Err(unserved) => return connection.give_up(&unserved),
            }
        }
    }

    fn grant(&mut self, key: Key, request: &Request) {
        let wish = match wish(request) {
            Ok(Wish::Act(action)) => return self.act(key, action),
            Ok(Wish::Info) if self.machine.is_known_elsewhere() => {
                return self.act(key, Action::Info);
            }
            Ok(Wish::Events { since, follow }) => return self.follow(key, since, follow),
            other => other,
        };
        let Some(connection) = self.clients.get_mut(key) else { return };
        let last = connection.is_last();
        let response = match wish {
            Ok(Wish::Info) => http::json(Status::Ok, &self.machine.info(), last),
            Ok(Wish::Device(id)) => {
                let devices = self.machine.devices();
                match devices.iter().find(|device| device.id == id) {
                    Some(device) => http::json(Status::Ok, device, last),
                    None => {
                        let ids = devices.iter().map(|device| device.id.as_str());
                        http::refuse(&(&Refusal::no_device(&id, ids)).into(), last)
                    }
                }
            }
            Ok(_) => http::json(Status::Ok, &self.machine.devices(), last),
            Err(unserved) => http::refuse(&unserved, last),
        };
        connection.answer(&response);
    }

    /// Has a thread of its own do what may take long.
    fn act(&mut self, key: Key, action: Action) {
        let started = if self.actions < MAX_ACTIONS {
            let (machine, sender) = (Arc::clone(&self.machine), self.sender.clone());
            let shared = Arc::clone(&self.shared);
            thread::Builder::new().name("action".to_owned()).spawn(move || {
                // The server may have ended meanwhile.
                let _unheard = sender.send((key, machine.act(action)));
                shared.wake.signal();
            })
        } else {
            Err(io::Error::other(format!("{MAX_ACTIONS} actions are being done already")))
        };
        match started {
            Ok(_detached) => self.actions = self.actions.saturating_add(1),
            Err(error) => {
                let Some(connection) = self.clients.get_mut(key) else { return };
                let unserved = Unserved::new(Status::Busy, error.to_string());
                let response = http::refuse(&unserved, connection.is_last());
                connection.answer(&response);
            }
        }
    }

    fn finish(&mut self, key: Key, result: Result<Outcome, Refusal>) {
        let Some(connection) = self.clients.get_mut(key) else { return };
        let last = connection.is_last();
        connection.answer(&match result {
            Ok(Outcome::Done) => http::done(last),
            Ok(Outcome::Now(value)) => http::json(Status::Ok, &value, last),
            Ok(Outcome::Metrics(text)) => http::text(http::PROMETHEUS, &text, last),
            Err(refusal) => http::refuse(&(&refusal).into(), last),
        });
        // The next request may have come before this answer.
        self.serve(key);
    }

    fn follow(&mut self, key: Key, since: Option<u64>, follow: bool) {
        let Some(connection) = self.clients.get_mut(key) else { return };
        connection.send(&http::head(Status::Ok, "application/x-ndjson", None, true));
        let seen = since.unwrap_or(0).max(self.events.forgotten());
        tell(connection, &self.events, seen);
        if !follow {
            connection.phase = Phase::Closing;
        }
    }

    /// Gives each follower that has read what it had what has happened since. So at most one batch
    /// is on its way to each; what else there is waits in the log, or is lost.
    fn tell_followers(&mut self) {
        for connection in self.clients.iter_mut() {
            if let Phase::Following { seen } = connection.phase
                && connection.write()
                && connection.is_drained()
            {
                tell(connection, &self.events, seen);
            }
        }
    }
}

fn tell(connection: &mut Connection, events: &EventLog, seen: u64) {
    match events.after(seen) {
        Ok((lines, last)) => {
            for line in lines {
                connection.send(line.as_bytes());
            }
            connection.phase = Phase::Following { seen: last };
        }
        // It reads too slowly, and finds out by the numbers that it has missed something.
        Err(_missed) => connection.phase = Phase::Closing,
    }
}

#[cfg(test)]
#[path = "server_test.rs"]
mod tests;
