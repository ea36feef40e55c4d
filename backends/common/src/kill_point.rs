//! Places on a request's way at which a test lets this process die, and mistakes that it makes it
//! make. Only debug builds with the feature `kill-points` have them; in all others they are nothing.
//!
//! `ATOLL_KILL_POINT=Recorded:3` kills the process when it comes to [`Step::Recorded`] for the third
//! time. `ATOLL_MISTAKE=Unrecorded` lets it make that [`Mistake`] throughout.

/// A step on a request's way. Between two of them nothing changes that outlasts the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A chain was seen in the available ring, and is on no record yet.
    Seen,
    /// Its place in the order is on record, and it itself is not.
    Numbered,
    /// It is on record.
    Recorded,
    /// The device has done what it asks for.
    Acted,
    /// It is linked to the chain before it, and the record does not know it as the newest.
    Linked,
    /// It is the newest of those that are about to be published.
    Newest,
    /// Its entry is in the used ring, whose index does not cover it.
    Entered,
    /// The driver can see that it is done.
    Published,
    /// It is no longer on record.
    Cleared,
    /// The record knows the used index.
    Settled,
    /// It is to be taken again, and still on record.
    Returned,
    /// It is to be taken again, and no longer on record.
    Forgotten,
}

/// A mistake in the keeping of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A chain is acted on without being on record.
    Unrecorded,
    /// A chain stays on record when it is done.
    Uncleared,
    /// The chains are on record without their order.
    Unordered,
}

#[cfg(all(feature = "kill-points", debug_assertions))]
mod armed {
    use std::env;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{Signal, raise};

    use super::{Mistake, Step};

    impl Step {
        /// All of them, in the order of a request's way.
        pub const ALL: [Self; 12] = [
            Self::Seen,
            Self::Numbered,
            Self::Recorded,
            Self::Acted,
            Self::Linked,
            Self::Newest,
            Self::Entered,
            Self::Published,
            Self::Cleared,
            Self::Settled,
            Self::Returned,
            Self::Forgotten,
        ];
    }

    /// The step at which to die, and how many times it is still passed.
    struct Death {
        step: String,
        left: AtomicU32,
    }

    fn death() -> Option<&'static Death> {
        static DEATH: OnceLock<Option<Death>> = OnceLock::new();
        let parse = || {
            let plan = env::var("ATOLL_KILL_POINT").ok()?;
            let (step, count) = plan.split_once(':')?;
            Some(Death { step: step.to_owned(), left: AtomicU32::new(count.parse().ok()?) })
        };
        DEATH.get_or_init(parse).as_ref()
    }

    pub(crate) fn reached(step: Step) {
        let Some(death) = death().filter(|death| death.step == format!("{step:?}")) else { return };
        if death.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            // It does not return.
            let _dead = raise(Signal::SIGKILL);
        }
    }

    pub(crate) fn makes(mistake: Mistake) -> bool {
        static MISTAKE: OnceLock<Option<String>> = OnceLock::new();
        let made = MISTAKE.get_or_init(|| env::var("ATOLL_MISTAKE").ok());
        made.as_ref().is_some_and(|made| *made == format!("{mistake:?}"))
    }
}

#[cfg(all(feature = "kill-points", debug_assertions))]
pub(crate) use armed::{makes, reached};

/// Nothing.
#[cfg(not(all(feature = "kill-points", debug_assertions)))]
pub(crate) const fn reached(_step: Step) {}

/// Never.
#[cfg(not(all(feature = "kill-points", debug_assertions)))]
pub(crate) const fn makes(_mistake: Mistake) -> bool {
    false
}
