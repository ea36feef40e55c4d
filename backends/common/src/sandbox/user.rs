//! The user that a process started as root becomes.

use std::str::FromStr;

use nix::unistd::{Gid, Group, Uid, setgroups, setresgid, setresuid};
use tap::TapFallible;

use super::SandboxError;

/// A user and a group, looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: Uid,
    gid: Gid,
}

/// There is no such user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No user has that name or number.
    #[error("there is no user {name}; a number without a user takes its group, as UID:GID")]
    User {
        /// As written.
        name: String,
    },
    /// No group has that name.
    #[error("there is no group {name}")]
    Group {
        /// As written.
        name: String,
    },
}

impl User {
    /// Becomes that user, for good. Supplementary groups are given up: they would only help to
    /// open files.
    pub(super) fn become_it(self) -> Result<(), SandboxError> {
        let Self { uid, gid } = self;
        // What the user's programs could regain by executing others; needs a capability that is
        // about to go. Without it, no new privileges will do.
        let _kept = caps::clear(None, caps::CapSet::Bounding)
            .tap_err(|error| tracing::debug!("the bounding set stays: {error}"));
        setgroups(&[])
            .and_then(|()| setresgid(gid, gid, gid))
            .and_then(|()| setresuid(uid, uid, uid))
            .map_err(|source| SandboxError::User { uid: uid.into(), gid: gid.into(), source })
    }
}

impl FromStr for User {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        let (name, group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (text, None),
        };
        let number = name.parse().ok().map(Uid::from_raw);
        let known = match number {
            Some(uid) => nix::unistd::User::from_uid(uid),
            None => nix::unistd::User::from_name(name),
        };
        let known = known.ok().flatten();
        let missing = UserError::User { name: name.into() };
        let uid = number.or(known.as_ref().map(|user| user.uid)).ok_or(missing.clone())?;
        let gid = match group {
            Some(group) => self::group(group)?,
            None => known.map(|user| user.gid).ok_or(missing)?,
        };
        Ok(Self { uid, gid })
    }
}

fn group(text: &str) -> Result<Gid, UserError> {
    if let Ok(number) = text.parse() {
        return Ok(Gid::from_raw(number));
    }
    let known = Group::from_name(text).ok().flatten();
    known.map(|group| group.gid).ok_or_else(|| UserError::Group { name: text.into() })
}

#[cfg(test)]
#[path = "user_test.rs"]
mod tests;
