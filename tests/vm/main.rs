//! Real guests under the real VMM: a stock Linux kernel, and device processes of their own.

mod boot;
mod console;
mod disk;
mod interop;
mod lifecycle;
mod machine;
mod network;
mod scale;
mod steady_state;
