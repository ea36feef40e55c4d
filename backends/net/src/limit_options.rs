//! The options that say how fast each direction of a network card may be.

use atoll_backend::{Limits, limit};

/// Limits of each direction.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitOptions {
    /// The most bytes a second that reach the guest, such as 10M
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    pub limit_rx_bps: Option<u64>,

    /// How many of them may go at once after a rest [default: a tenth of a second's]
    #[arg(long, value_name = "BYTES", value_parser = limit, requires = "limit_rx_bps")]
    pub limit_rx_bps_burst: Option<u64>,

    /// The most packets a second that reach the guest
    #[arg(long, value_name = "N", value_parser = limit)]
    pub limit_rx_pps: Option<u64>,

    /// How many of them may go at once after a rest [default: a tenth of a second's]
    #[arg(long, value_name = "N", value_parser = limit, requires = "limit_rx_pps")]
    pub limit_rx_pps_burst: Option<u64>,

    /// The most bytes a second that leave the guest
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    pub limit_tx_bps: Option<u64>,

    /// How many of them may go at once after a rest [default: a tenth of a second's]
    #[arg(long, value_name = "BYTES", value_parser = limit, requires = "limit_tx_bps")]
    pub limit_tx_bps_burst: Option<u64>,

    /// The most packets a second that leave the guest
    #[arg(long, value_name = "N", value_parser = limit)]
    pub limit_tx_pps: Option<u64>,

    /// How many of them may go at once after a rest [default: a tenth of a second's]
    #[arg(long, value_name = "N", value_parser = limit, requires = "limit_tx_pps")]
    pub limit_tx_pps_burst: Option<u64>,
}

impl LimitOptions {
    /// Of what reaches the guest.
    pub(crate) fn receive(self) -> Limits {
        limits(
            [self.limit_rx_bps, self.limit_rx_bps_burst],
            [self.limit_rx_pps, self.limit_rx_pps_burst],
        )
    }

    /// Of what leaves it.
    pub(crate) fn transmit(self) -> Limits {
        limits(
            [self.limit_tx_bps, self.limit_tx_bps_burst],
            [self.limit_tx_pps, self.limit_tx_pps_burst],
        )
    }
}

fn limits(bytes: [Option<u64>; 2], packets: [Option<u64>; 2]) -> Limits {
    let [bps, bps_burst] = bytes.map(Option::unwrap_or_default);
    let [iops, iops_burst] = packets.map(Option::unwrap_or_default);
    Limits { bps, bps_burst, iops, iops_burst }
}
