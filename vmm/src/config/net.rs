//! A network card, as it is asked for.

use std::path::PathBuf;

use serde::Deserialize;

use super::options::{Section, parsed, parsed_option, switch};
use super::{limits, on};
use crate::control_line::Limits;
use crate::vhost_user::Policy;

/// `--net`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "NetKeys")]
pub struct NetConfig {
    /// The host's side of it.
    pub to: NetTo,
    /// The guest's address, as `02:00:00:00:00:01`.
    pub mac: Option<String>,
    /// The link's MTU in bytes.
    pub mtu: Option<u16>,
    /// Pairs of queues; one unless given.
    pub queue_pairs: Option<u16>,
    /// Whether its process gives up what it does not need.
    pub sandbox: bool,
    /// What becomes of the machine while nobody serves it.
    pub on_disconnect: Policy,
    /// The device's name.
    pub id: Option<String>,
    /// How fast each direction may be.
    pub limits: Limits,
}

/// What a network card is attached to.
#[derive(Clone, Debug, PartialEq)]
pub enum NetTo {
    /// A TAP of this name.
    Tap(String),
    /// A new TAP, joined to the bridge of this name.
    Bridge(String),
    /// A macvtap of this name.
    Macvtap(String),
    /// The Unix stream socket that somebody serves there.
    Stream(PathBuf),
    /// A Unix stream socket made there, for somebody to connect to.
    StreamServer(PathBuf),
    /// A Unix datagram socket made at the first path, which sends to the second.
    Datagrams(PathBuf, PathBuf),
    /// The user-mode network, with these ports of the host's forwarded to the guest.
    User(Vec<String>),
}

/// [`NetConfig`] before it is known which of them it is.
#[derive(Deserialize)]
struct NetKeys {
    tap: Option<String>,
    bridge: Option<String>,
    macvtap: Option<String>,
    stream: Option<PathBuf>,
    #[serde(default, deserialize_with = "switch")]
    server: bool,
    dgram: Option<PathBuf>,
    remote: Option<PathBuf>,
    #[serde(default, deserialize_with = "switch")]
    user: bool,
    hostfwd: Option<String>,
    mac: Option<String>,
    #[serde(default, deserialize_with = "parsed_option")]
    mtu: Option<u16>,
    #[serde(default, rename = "queue-pairs", deserialize_with = "parsed_option")]
    queue_pairs: Option<u16>,
    #[serde(default = "on", deserialize_with = "switch")]
    sandbox: bool,
    #[serde(default, rename = "on-disconnect", deserialize_with = "parsed")]
    on_disconnect: Policy,
    id: Option<String>,
    #[serde(flatten, deserialize_with = "limits::limits")]
    limits: Limits,
}

impl TryFrom<NetKeys> for NetConfig {
    type Error = &'static str;

    fn try_from(keys: NetKeys) -> Result<Self, Self::Error> {
        if keys.dgram.is_some() != keys.remote.is_some() {
            return Err("dgram and remote go together, as in dgram=HERE,remote=THERE");
        }
        if keys.server && keys.stream.is_none() {
            return Err("server goes with stream, as in stream=HERE,server=on");
        }
        let places = [
            keys.tap.map(NetTo::Tap),
            keys.bridge.map(NetTo::Bridge),
            keys.macvtap.map(NetTo::Macvtap),
            keys.stream.map(if keys.server { NetTo::StreamServer } else { NetTo::Stream }),
            keys.dgram.zip(keys.remote).map(|(here, there)| NetTo::Datagrams(here, there)),
            keys.user.then(|| {
                let forwards = keys.hostfwd.iter().flat_map(|forwards| forwards.split('+'));
                let forwards = forwards.filter(|forward| !forward.is_empty());
                NetTo::User(forwards.map(str::to_owned).collect())
            }),
        ];
        if keys.hostfwd.is_some() && !keys.user {
            return Err("hostfwd goes with user, as in user,hostfwd=tcp:2222:22");
        }
        let mut places = places.into_iter().flatten();
        let (Some(to), None) = (places.next(), places.next()) else {
            return Err(
                "it takes exactly one of tap=NAME, bridge=NAME, macvtap=NAME, stream=PATH, dgram=PATH and \
                 user",
            );
        };
        let several = matches!(to, NetTo::Tap(_) | NetTo::Bridge(_) | NetTo::Macvtap(_));
        if keys.queue_pairs.is_some() && !several {
            return Err("queue-pairs goes with tap, bridge and macvtap; a socket has one pair");
        }
        let NetKeys { mac, mtu, queue_pairs, sandbox, on_disconnect, id, limits, .. } = keys;
        Ok(Self { to, mac, mtu, queue_pairs, sandbox, on_disconnect, id, limits })
    }
}

impl Section for NetConfig {
    const NAME: &'static str = "net";
    const KEYS: &'static [&'static str] = &[
        "tap",
        "bridge",
        "macvtap",
        "stream",
        "server",
        "dgram",
        "remote",
        "user",
        "hostfwd",
        "mac",
        "mtu",
        "queue-pairs",
        "sandbox",
        "rx-bps",
        "rx-bps-burst",
        "rx-pps",
        "rx-pps-burst",
        "tx-bps",
        "tx-bps-burst",
        "tx-pps",
        "tx-pps-burst",
        "on-disconnect",
        "id",
    ];
}
