//! Frames: at every step of the handshake the connection ends, or the message there has the wrong
//! size, version, descriptors or content.

use super::handshake::Handshake;
use super::{Abuse, Told, file};
use crate::Error;

/// More descriptors than any message may have.
const TOO_MANY: usize = 20;

pub(super) fn all(handshake: &Handshake) -> Result<Vec<Abuse>, Error> {
    let messages = handshake.messages();
    let mut all = Vec::new();
    for (step, told) in messages.iter().enumerate() {
        let (before, _) = messages.split_at(step);
        let [request, ..] = told.header;
        let mut add = |what: &str, abrupt, last: Vec<Told>| {
            let messages = [before, &last].concat();
            all.push(Abuse {
                name: format!("request {request}: {what}"),
                messages,
                abrupt,
                blocks: None,
            });
        };
        add("gone before it", true, Vec::new());
        add("gone after it", true, vec![told.clone()]);
        for (what, changed) in wrong(told)? {
            add(what, false, vec![changed]);
        }
        // Twice is not wrong everywhere, and harmless anywhere.
        add("twice", false, vec![told.clone(), told.clone()]);
    }
    Ok(all)
}

fn wrong(told: &Told) -> Result<Vec<(&'static str, Told)>, Error> {
    let [request, flags, size] = told.header;
    let whole = told.payload.as_slice();
    let (shorter, longer) = (whole.get(1..).unwrap_or_default(), [whole, &[0; 8]].concat());
    let some_file = file(4096)?;
    let one_more = told.fds.iter().chain([&some_file]).cloned().collect();
    let reframed = |header: [u32; 3]| Told { header, ..told.clone() };
    Ok(vec![
        ("shorter by a byte", told.with_payload(shorter.to_vec())),
        ("longer by a word", told.with_payload(longer)),
        ("half of it", Told { payload: shorter.to_vec(), ..told.clone() }),
        ("all ones", told.with_payload(vec![0xff; whole.len()])),
        ("no descriptors", told.with_fds(Vec::new())),
        ("one descriptor more", told.with_fds(one_more)),
        ("too many descriptors", told.with_fds(vec![some_file; TOO_MANY])),
        ("no version", reframed([request, 0, size])),
        ("another version", reframed([request, 2, size])),
        ("a reply", reframed([request, flags | 4, size])),
        ("of 4 GiB", reframed([request, flags, u32::MAX])),
        ("of a page and more", told.with_payload(vec![0; 5000])),
        ("a request that does not exist", reframed([9999, flags, size])),
    ])
}
