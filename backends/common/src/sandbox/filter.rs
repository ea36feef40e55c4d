//! The filter of system calls: what is not allowed ends the process, or is refused where a library
//! tries it and can do without.

use std::collections::BTreeMap;

use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule};

use super::own_name::Sealed;
use super::system_call::SystemCall;
use super::{SandboxError, common};

/// Installs it for this thread and those that it starts.
pub(super) fn install(own: &Sealed, needed: Vec<SystemCall>) -> Result<(), SandboxError> {
    // Where filters disagree the kernel does the worst of what they say: a call that is refused
    // has to be allowed by the list, as all else ends the process.
    let (refused, unknown) = (common::refused(), common::unknown());
    let allowed =
        [common::calls(), common::on_names(own), refused.clone(), unknown.clone(), needed];
    let filters = [
        program(&allowed.concat(), SeccompAction::Trap, SeccompAction::Allow)?,
        program(&refused, SeccompAction::Allow, errno(libc::EACCES))?,
        program(&unknown, SeccompAction::Allow, errno(libc::ENOSYS))?,
    ];
    // The list last: it does not allow to add another.
    for filter in filters.iter().rev() {
        seccompiler::apply_filter(filter).map_err(SandboxError::Filter)?;
    }
    Ok(())
}

fn errno(code: i32) -> SeccompAction {
    SeccompAction::Errno(code.unsigned_abs())
}

fn program(
    calls: &[SystemCall],
    otherwise: SeccompAction,
    action: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    compile(calls, otherwise, action).map_err(SandboxError::Rules)
}

fn compile(
    calls: &[SystemCall],
    otherwise: SeccompAction,
    action: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for call in calls {
        let known = rules.entry(call.number()).or_insert_with(|| Some(Vec::new()));
        match (call.rule()?, known.as_mut()) {
            (Some(rule), Some(list)) => list.push(rule),
            // Once a call is allowed with any arguments, others say nothing more.
            _ => *known = None,
        }
    }
    let rules = rules.into_iter().map(|(number, list)| (number, list.unwrap_or_default()));
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules.collect(), otherwise, action, arch)?.try_into()
}
