//! Atoll: a KVM virtual machine monitor whose devices are processes of their own.
//!
//! The folders are the parts of the machine. `vm` puts them together; nothing below knows `vm`,
//! and devices know buses and interrupts only by small traits.

pub mod acpi;
pub mod arch;
pub mod attach;
pub mod boot;
pub mod bus;
pub mod child;
pub mod cli;
pub mod config;
pub mod control;
pub mod control_line;
pub mod ctl;
pub mod irq;
pub mod legacy;
pub mod memory;
pub mod metrics;
pub mod pci;
pub mod vcpu;
pub mod vhost_user;
pub mod virtio;
pub mod vm;
