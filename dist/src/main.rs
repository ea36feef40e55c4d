//! Writes the man pages and the shell completions of every program into a folder, as they are laid
//! out below `/usr/share`. All of it comes from the programs' own command lines; nothing is
//! described twice.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory, Parser};
use clap_complete::Shell;

/// Writes Atoll's man pages and shell completions.
#[derive(Parser)]
struct Args {
    /// The folder that stands for /usr/share
    share: PathBuf,
}

/// Where each shell looks for completions, below `/usr/share`.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Zsh, "zsh/vendor-completions"),
    (Shell::Fish, "fish/vendor_completions.d"),
];

fn main() -> Result<()> {
    let share = Args::parse().share;
    let pages = folder(&share, "man/man1")?;
    for program in programs() {
        let name = program.get_name().to_owned();
        clap_mangen::generate_to(program.clone(), &pages)
            .with_context(|| format!("cannot write the man pages of {name}"))?;
        for (shell, place) in COMPLETIONS {
            complete(&program, shell, &folder(&share, place)?)?;
        }
    }
    Ok(())
}

/// Every program that a user runs.
fn programs() -> [Command; 4] {
    [
        atoll::cli::Cli::command(),
        atoll_blk::Options::command(),
        atoll_net::Options::command(),
        atoll_console::Options::command(),
    ]
}

fn complete(program: &Command, shell: Shell, folder: &Path) -> Result<()> {
    let name = program.get_name().to_owned();
    // bash looks for the bare name.
    let written = match shell {
        Shell::Bash => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program.clone(), &name, &mut script);
            fs::write(folder.join(&name), script)
        }
        _ => clap_complete::generate_to(shell, &mut program.clone(), &name, folder).map(drop),
    };
    written.with_context(|| format!("cannot write the completions of {name}"))
}

fn folder(share: &Path, place: &str) -> Result<PathBuf> {
    let folder = share.join(place);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
