//! A frame turned round: to whom it came from. Sums over what only changes places stay right.

/// As much of a frame as changes: Ethernet's addresses, IPv4's and the ports behind them.
pub(super) const TURNED: usize = 38;

/// Turns a frame of UDP over IPv4 round.
pub(super) fn turn(frame: &mut [u8; TURNED]) {
    let places = [(0, 6, 6), (26, 30, 4), (34, 36, 2)];
    for (one, other, len) in places {
        (0..len).for_each(|byte| frame.swap(one + byte, other + byte));
    }
}
