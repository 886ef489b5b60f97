//! The delivery thread: one loop, one connection to the ledger.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use yoink_core::{Event, Fact, Seq, Timestamp};

use super::{
    DeliveryOptions, Next, Prepared, Source, SourceClosed, Stop,
    carry::{Carried, Policy, carry_events, carry_retries, chain},
    command::Command,
    retry::Schedule,
    status::{DeliveryEnd, Running, Shared},
};
use crate::{
    OpenError,
    ledger::{Due, Ledger, LedgerFault, Loaded, Rows, Step, Synced, WriteError},
};

/// How long the thread waits for an event before it looks for commands. An operator's call takes at most this longer.
const IDLE_WAIT: Duration = Duration::from_millis(25);

/// How often a paused delivery looks at the log, only to say how old the oldest undelivered order is.
const PAUSED_LOOK_EVERY: Duration = Duration::from_secs(1);

/// How much lower than selling the thread's priority is: on a small machine selling must win.
const NICENESS: i32 = 19;

/// The thread's state. What is in memory is only ever changed after the transaction that it follows from.
pub(super) struct Worker {
    folder: PathBuf,
    options: DeliveryOptions,
    policy: Policy,
    fault: LedgerFault,
    pub(super) source: Box<dyn Source>,
    commands: Receiver<Command>,
    pub(super) shared: Arc<Shared>,
    /// `None` after trouble: it is opened, and everything below read from it, again.
    ledger: Option<Ledger>,
    pub(super) position: Seq,
    pub(super) paused: bool,
    /// Whether there may be dead letters whose units are to be given back.
    pub(super) may_have_releasing: bool,
    schedule: Schedule,
    /// When the oldest event behind the position was committed, as far as is known. Trouble does not change it.
    next_at: Option<Timestamp>,
    /// Transactions that were committed, so that a call can say whether it began to change anything.
    pub(super) written_total: u64,
    /// Troubles in a row, and when to go on after the last.
    troubles: u32,
    wait_until: Option<Instant>,
    /// Until when to carry what is left, once it was said to stop.
    drain_until: Option<Instant>,
}

/// Why the thread did not go on.
pub(super) enum Halt {
    /// The ledger cannot be used just now.
    Trouble(Trouble),
    /// Delivery ends.
    End(DeliveryEnd),
}

/// Why the ledger cannot be used just now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the ledger cannot be read")]
    Read(#[from] rusqlite::Error),
    #[error("the ledger cannot be opened again")]
    Open(#[source] Box<OpenError>),
    #[error(
        "the ledger was at event {was} and is at {found}: its file was exchanged; restart with the right one"
    )]
    WentBack { was: Seq, found: Seq },
    #[error("event {expected} was due and event {found} came; nothing is delivered past a gap")]
    Gap { expected: Seq, found: Seq },
}

impl<E: Into<Trouble>> From<E> for Halt {
    fn from(trouble: E) -> Self {
        Self::Trouble(trouble.into())
    }
}

impl From<SourceClosed> for Halt {
    fn from(_: SourceClosed) -> Self {
        Self::End(DeliveryEnd::SourceClosed)
    }
}

impl Worker {
    /// A thread's state that believes what was just read from the ledger; nothing is written yet.
    pub fn new(
        prepared: Prepared,
        source: Box<dyn Source>,
        (commands, shared): (Receiver<Command>, Arc<Shared>),
    ) -> Self {
        let Prepared { folder, options, fault, ledger, loaded } = prepared;
        let mut worker = Self {
            folder,
            policy: Policy::from(&options),
            options,
            fault,
            source,
            commands,
            shared,
            ledger: Some(ledger),
            position: 0,
            paused: false,
            may_have_releasing: true,
            schedule: Schedule::default(),
            next_at: None,
            written_total: 0,
            troubles: 0,
            wait_until: None,
            drain_until: None,
        };
        worker.take_over(loaded);
        worker
    }

    /// Runs until it is told to stop, its source closes, or nobody holds a handle any more.
    pub fn run(mut self) {
        // Where the system does not allow it, delivery is merely as important as selling.
        let _ = rustix::process::nice(NICENESS);
        let running = Running::new(Arc::clone(&self.shared));
        let end = self.turns();
        if end == DeliveryEnd::SourceClosed {
            tracing::warn!(
                position = self.position,
                "delivery ended because the engine closed or failed and nobody had stopped delivery; no order gets into \
                 the ledger until the engine is started again, which carries what is left"
            );
        }
        running.end(end);
    }

    fn turns(&mut self) -> DeliveryEnd {
        loop {
            match self.turn() {
                Ok(()) => {}
                Err(Halt::Trouble(trouble)) => self.note_trouble(&trouble),
                // It had been told to stop, and was only draining.
                Err(Halt::End(_)) if self.drain_until.is_some() => return DeliveryEnd::Asked,
                Err(Halt::End(end)) => return end,
            }
        }
    }

    fn turn(&mut self) -> Result<(), Halt> {
        self.obey_waiting()?;
        if self.drain_until.is_some_and(|until| Instant::now() >= until) {
            return Err(Halt::End(DeliveryEnd::Asked));
        }
        if let Some(until) = self.wait_until {
            if self.next_at.is_none() {
                self.look_ahead()?;
            }
            let until = self.drain_until.map_or(until, |drain| drain.min(until));
            return self.wait_for_command(until, |worker| worker.wait_until = None);
        }
        self.ledger()?;
        if self.paused {
            return self.stay_paused();
        }
        self.release()?;
        self.carry_due()?;
        self.carry_next()
    }

    fn obey_waiting(&mut self) -> Result<(), Halt> {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.obey(command)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(Halt::End(DeliveryEnd::Asked)),
            }
        }
    }

    /// Obeys one command if one comes in time; otherwise goes on with `then`.
    fn wait_for_command(&mut self, until: Instant, then: impl FnOnce(&mut Self)) -> Result<(), Halt> {
        match self.commands.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(command) => self.obey(command),
            Err(RecvTimeoutError::Timeout) => {
                then(self);
                Ok(())
            }
            Err(RecvTimeoutError::Disconnected) => Err(Halt::End(DeliveryEnd::Asked)),
        }
    }

    fn stay_paused(&mut self) -> Result<(), Halt> {
        self.look_ahead()?;
        let until = Instant::now().checked_add(PAUSED_LOOK_EVERY).unwrap_or_else(Instant::now);
        self.wait_for_command(until, |_| ())
    }

    /// Looks, without carrying anything, how old the next event is.
    fn look_ahead(&mut self) -> Result<(), Halt> {
        match self.source.events(self.position, 1, Duration::ZERO)? {
            Next::Events(next) => self.next_at = next.first().map(|event| event.at),
            Next::Nothing | Next::Lost(_) => self.next_at = None,
            Next::Unread => {}
        }
        self.note_oldest();
        Ok(())
    }

    pub(super) fn begin_stop(&mut self, stop: Stop) -> Result<(), Halt> {
        match stop {
            Stop::AfterDraining(time) if !self.paused => {
                self.drain_until = Instant::now().checked_add(time);
                Ok(())
            }
            Stop::Now | Stop::AfterDraining(_) => Err(Halt::End(DeliveryEnd::Asked)),
        }
    }

    /// Carries what the log has next.
    fn carry_next(&mut self) -> Result<(), Halt> {
        let events_max = self.options.batch_orders_max.max(1);
        match self.source.events(self.position, events_max, self.patience())? {
            Next::Events(events) => self.carry(events, events_max),
            Next::Lost(to) => self.pass_over(to),
            Next::Nothing => {
                self.next_at = None;
                self.note_oldest();
                if self.drain_until.is_some() && !self.may_have_releasing {
                    return Err(Halt::End(DeliveryEnd::Asked));
                }
                Ok(())
            }
            // There may be more, so nothing is over; also while draining, which has its own end.
            Next::Unread => Ok(()),
        }
    }

    /// The events up to `to` are lost: the ledger will never have them, and goes on behind.
    fn pass_over(&mut self, to: Seq) -> Result<(), Halt> {
        if to <= self.position {
            let expected = self.position.saturating_add(1);
            return Err(Trouble::Gap { expected, found: to }.into());
        }
        tracing::warn!(after = self.position, to, "delivery passes over events whose loss was accepted");
        self.write(|rows| rows.set_position(to))?;
        self.shared.advance(to, []);
        self.position = to;
        Ok(())
    }

    fn carry(&mut self, events: Vec<Event>, events_max: usize) -> Result<(), Halt> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        // A full batch means that there is probably more, and no older than this.
        let next_at = (events.len() >= events_max).then_some(last.at);
        let (expected, found, last) = (self.position.saturating_add(1), first.seq, last.seq);
        if found != expected {
            return Err(Trouble::Gap { expected, found }.into());
        }
        self.next_at = events.iter().find(|event| is_order(event)).map(|event| event.at);
        self.note_oldest();
        let (policy, now) = (self.policy, self.source.now());
        let carried =
            self.write_synced(Synced::WithTheNext, |rows| carry_events(rows, events, policy, now))?;
        self.pass(Step::AfterCommit)?;
        let refused = carried.refused.iter().map(|due| due.seq);
        self.shared.advance(last, refused.chain(carried.dead.iter().copied()));
        self.position = last;
        self.next_at = next_at;
        self.note_carried(&carried, now)
    }

    /// Tries again what was refused and whose time has come.
    fn carry_due(&mut self) -> Result<(), Halt> {
        let due = self.schedule.due(Instant::now(), self.options.batch_orders_max.max(1));
        if due.is_empty() {
            return Ok(());
        }
        let (policy, now) = (self.policy, self.source.now());
        let carried = self.write(|rows| carry_retries(rows, &due, policy, now))?;
        self.pass(Step::AfterCommit)?;
        self.note_carried(&carried, now)
    }

    /// How long the source may wait for an event.
    fn patience(&self) -> Duration {
        if self.drain_until.is_some() || self.may_have_releasing {
            return Duration::ZERO;
        }
        let next = self.schedule.next().map(|next| next.saturating_duration_since(Instant::now()));
        next.map_or(IDLE_WAIT, |next| next.min(IDLE_WAIT))
    }

    /// Tells what a committed transaction did.
    fn note_carried(&mut self, carried: &Carried, now: Timestamp) -> Result<(), Halt> {
        self.reschedule(&carried.refused, now);
        for seq in carried.delivered.iter().chain(&carried.dead) {
            self.schedule.remove(*seq);
        }
        // An order that ended as a dead letter is nowhere and never will be; one that waits becomes a row yet.
        let ended = carried.ended.iter().copied().filter(|seq| !self.schedule.contains(*seq));
        let settled: Vec<Seq> = carried.delivered.iter().copied().chain(ended).collect();
        let (retrying, dead) = (self.schedule.len(), carried.dead.len());
        self.shared.update(|status| {
            status.confirmed_total = status.confirmed_total.saturating_add(carried.confirmed);
            status.failed_total = status.failed_total.saturating_add(dead as u64);
            status.retrying = retrying as u64;
        });
        self.note_oldest();
        if dead > 0 {
            self.may_have_releasing = true;
            self.count_dead_letters()?;
        }
        if dead > 0 || !settled.is_empty() {
            self.shared.settle(settled);
        }
        Ok(())
    }

    pub(super) fn reschedule(&mut self, dues: &[Due], now: Timestamp) {
        for due in dues {
            self.schedule.put(*due, (Instant::now(), now), self.options.backoff_max);
        }
        let retrying = self.schedule.len() as u64;
        self.shared.update(|status| status.retrying = retrying);
    }

    fn note_oldest(&self) {
        let oldest = self.schedule.oldest().into_iter().chain(self.next_at).min();
        self.shared.update(|status| status.oldest_undelivered_at = oldest);
    }

    pub(super) fn count_dead_letters(&mut self) -> Result<(), Halt> {
        let open = self.ledger()?.dead_letters_open()?;
        self.shared.update(|status| status.dead_letters_open = open);
        Ok(())
    }

    /// One transaction of the ledger, measured. Success ends a time of trouble.
    pub(super) fn write<T>(
        &mut self,
        work: impl FnOnce(&Rows<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, Halt> {
        self.write_synced(Synced::AtOnce, work)
    }

    fn write_synced<T>(
        &mut self,
        sync: Synced,
        work: impl FnOnce(&Rows<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, Halt> {
        let begun = Instant::now();
        let done = self.ledger()?.write(sync, work);
        self.shared.note_write(begun.elapsed());
        let done = done?;
        self.shared.update(|status| status.last_error = None);
        self.written_total = self.written_total.saturating_add(1);
        if self.troubles > 0 {
            tracing::info!(troubles = self.troubles, "the ledger can be written again");
            self.troubles = 0;
        }
        Ok(done)
    }

    /// The ledger; after trouble it is opened and read again first.
    pub(super) fn ledger(&mut self) -> Result<&mut Ledger, Halt> {
        let ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => self.reopen()?,
        };
        Ok(self.ledger.insert(ledger))
    }

    fn reopen(&mut self) -> Result<Ledger, Halt> {
        let reopened = Ledger::reopen(&self.folder, self.options.vfs.as_deref(), self.fault.clone());
        let ledger = reopened.map_err(|error| Trouble::Open(Box::new(error)))?;
        let loaded = ledger.load()?;
        if loaded.position < self.position {
            return Err(Trouble::WentBack { was: self.position, found: loaded.position }.into());
        }
        ledger.fold_back_on_close()?;
        self.take_over(loaded);
        Ok(ledger)
    }

    /// What was just read from the ledger is what is known.
    fn take_over(&mut self, loaded: Loaded) {
        let now = (Instant::now(), self.source.now());
        self.schedule = Schedule::load(&loaded.retries, now, self.options.backoff_max);
        self.position = loaded.position;
        self.paused = loaded.paused;
        self.may_have_releasing = true;
        self.shared.load(loaded.position, loaded.undelivered);
        let retrying = self.schedule.len() as u64;
        self.shared.update(|status| {
            status.paused = loaded.paused;
            status.retrying = retrying;
            status.dead_letters_open = loaded.dead_letters_open;
        });
        self.note_oldest();
    }

    /// Whatever it was: drop the connection, wait, open the file again and believe what it says. That is right for an
    /// outage, and it is what an unknown COMMIT needs.
    pub(super) fn note_trouble(&mut self, trouble: &Trouble) {
        self.ledger = None;
        self.troubles = self.troubles.saturating_add(1);
        let wait = self.policy.backoff.delay(self.troubles);
        self.wait_until = Instant::now().checked_add(wait);
        let error = chain(trouble);
        tracing::warn!(error, troubles = self.troubles, ?wait, "the ledger cannot be used; delivery waits");
        self.shared.update(|status| status.last_error = Some(error));
    }

    /// Passes a step at which a test may stop delivery.
    pub(super) fn pass(&self, step: Step) -> Result<(), Halt> {
        match self.fault.stops_at(step) {
            true => Err(Halt::End(DeliveryEnd::Asked)),
            false => Ok(()),
        }
    }
}

fn is_order(event: &Event) -> bool {
    matches!(event.fact, Fact::OrderAccepted(_))
}
