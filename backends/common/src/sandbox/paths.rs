//! Landlock: no file can be opened, whatever a filter of system calls may overlook, such as what
//! is asked for through io_uring. It forbids nothing that is done with files which are open.

use std::os::fd::AsFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::SandboxError;
use super::own_name::Sealed;

/// The newest whose rights are known here. An older kernel enforces what it knows.
const NEWEST: ABI = ABI::V6;

/// Forbids to open, make, change or remove any file, but to remove from the folders of our own
/// names; to bind or connect over TCP; to connect to abstract sockets; to signal others.
pub(super) fn restrict(own: &Sealed) -> Result<(), SandboxError> {
    let status = enter(own).map_err(SandboxError::Paths)?;
    match status {
        RulesetStatus::FullyEnforced => tracing::debug!("the Landlock domain is complete"),
        RulesetStatus::PartiallyEnforced => {
            tracing::info!("this kernel's Landlock is older than the sandbox, and enforces less");
        }
        RulesetStatus::NotEnforced => {
            tracing::warn!(
                "this kernel has no Landlock, or does not offer it here: the filter of system \
                 calls confines this process alone"
            );
        }
    }
    Ok(())
}

fn enter(own: &Sealed) -> Result<RulesetStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for name in &own.names {
        let folder = name.folder.as_fd();
        rules = rules.add_rule(PathBeneath::new(folder, AccessFs::RemoveFile))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}
