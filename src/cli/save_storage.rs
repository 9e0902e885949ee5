//! `save --storage`: a containers-storage that podman only reads, for media and packages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};
use serde_json::json;

use super::save::Args;
use super::shell::{Format, Shell, open_dir};
use crate::error::Error;
use crate::ops::collection::Means;
use crate::ops::load::verified;
use crate::ops::pull::When;
use crate::ops::set::gather;
use crate::output::harmless_line;
use crate::store::attached;
use crate::store::scratch::Scratch;
use crate::store::storage::Storage;
use crate::store::storage_conf::{Driver, StorageConf, StoreFlags};
use crate::store::storage_load::{LOAD_TIMEOUT, Load};

/// Loads images into a storage of their own.
pub fn run(shell: &Shell, args: &Args, directory: &Path) -> Result<ExitCode> {
    let context = || format!("Saving to {}", directory.display());
    let root = std::path::absolute(directory).with_context(context)?;
    std::fs::create_dir_all(&root).with_context(context)?;
    let layout = shell.store()?;
    let driver = driver(shell)?;
    // What ends with the boot is of no use to a storage that is only read.
    let run = Scratch::new(layout.dir(), layout.path(), "runroot")?;
    let flags = StoreFlags {
        root: Some(root.clone()),
        runroot: Some(run.path.clone()),
        driver: driver.name().map(str::to_owned),
    };
    let own = shell.storage_to_read()?.conf().clone();
    let conf = StorageConf {
        run_root: run.path.clone(),
        flags,
        additional: Vec::new(),
        image_store: None,
        graph_root: root,
        driver: driver.clone(),
        ..own
    };
    let storage = Storage::new(conf, Box::new(open_dir));
    let remote = args.registry.remote(shell)?;
    let progress = shell.progress(&directory.display().to_string());
    let report = |bytes, total| progress.towards(bytes, total);
    let tools = shell.tools();
    let copying = args.registry.copying(&tools, &report);
    let means = Means {
        layout: &layout,
        remote: &remote,
        when: When::Missing,
        limit: args.max_size,
        copying,
        trust: None,
        pins: true,
    };
    let _mounted = Mounted::watch(storage.conf().graph_root.join("overlay"));
    let _writing = layout.writing()?;
    let gathered = gather(&means, &args.references, args.registry.creds.is_some()).with_context(context)?;
    // All of it before any is there, where nobody can verify it any more.
    let blob = |digest: &str, _| attached::bundle(&layout, digest);
    let mut firsts = BTreeMap::new();
    for member in &gathered.members {
        if !member.manifest.info.is_loadable() {
            let reason = format!("{} is no image that containers-storage takes", member.name);
            return Err(Error::Unavailable { reason, hint: None }).with_context(context);
        }
        shell.recorded_refusal(verified(&layout, (member, &blob), None, &mut firsts)).with_context(context)?;
    }
    let mut images = Vec::new();
    for member in &gathered.members {
        let (manifest, name) = (member.manifest.descriptor()?, member.name.in_storage());
        let holder = layout.holder(&manifest);
        let load = Load {
            store: holder.dir(),
            store_path: holder.path(),
            work: (layout.dir(), layout.path()),
            manifest: &manifest,
            name: &name,
            platform: None,
            timeout: LOAD_TIMEOUT,
        };
        storage.load(&load, &tools).with_context(context)?;
        images.push(json!({"reference": member.name.to_string(), "name": name, "digest": member.manifest.digest}));
    }
    drop(progress);
    shell.warnings(&gathered.warnings);
    let path = storage.conf().graph_root.display().to_string();
    match args.format {
        Format::Json => shell.print_json(&json!({"storage": path, "driver": driver.to_string(), "images": images}))?,
        Format::Text => {
            let saved =
                |member: &crate::store::set::Member| format!("Saved {}\n", harmless_line(&member.name.to_string()));
            let lines: String = gathered.members.iter().map(saved).collect();
            shell.print(lines + &advice(&path, &driver))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The mount of a directory on itself that containers-storage makes of its own, for root, and leaves behind: what is to be copied to a
/// medium must not be busy. It goes when this is dropped, unless it was there before.
struct Mounted {
    path: PathBuf,
    before: bool,
}

impl Mounted {
    fn watch(path: PathBuf) -> Self {
        Self { before: is_mounted(&path), path }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.before && is_mounted(&self.path) {
            // Where it stays, it ends with the boot.
            let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        }
    }
}

/// Returns whether something is mounted at a path; of one with spaces in it that is not known.
fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path))
}

/// Returns the driver of podman here, which has to be that of all its storage; overlay where there is none yet.
fn driver(shell: &Shell) -> Result<Driver> {
    if let Some(driver) = &shell.global.storage_driver {
        return Ok(Driver::from_name(driver));
    }
    Ok(match shell.storage()?.driver()? {
        Driver::Unknown => Driver::Overlay,
        driver => driver,
    })
}

/// Returns what to write where, and what works then.
fn advice(path: &str, driver: &Driver) -> String {
    let path = harmless_line(path);
    format!(
        "Storage: {path} ({driver})\n\
         podman reads it with this in storage.conf:\n  \
         [storage.options]\n  \
         additionalimagestores = [\"{path}\"]\n\
         or for one command: podman --storage-opt {driver}.imagestore={path} …\n\
         From there podman runs, creates, copies and makes volumes (podman volume create --driver image);\n\
         --mount type=image and CRI-O's image volumes need an image in their own storage.\n"
    )
}
