//! `init`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::shell::{Format, Shell, open_dir};
use crate::ops::init::{self, Options};
use crate::output::harmless_line;

/// Start a skill
///
/// Makes the directory, where there is none, with SKILL.md and skill.yaml in it. Nothing is overwritten.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory; its last part is the skill's name
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// The skill's name [default: the directory's]
    #[arg(long)]
    name: Option<String>,
    /// The skill's namespace, such as a team
    #[arg(long, default_value = "local")]
    namespace: String,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let context = || format!("Starting a skill in {}", self.directory.display());
        let path = std::path::absolute(&self.directory).with_context(context)?;
        let base = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let options = Options { name: self.name.as_deref().unwrap_or(base), namespace: &self.namespace };
        let created = !path.exists();
        std::fs::create_dir_all(&path).with_context(context)?;
        let made = open_dir(&path).map_err(Into::into).and_then(|dir| init::init(&dir, &options));
        if created && made.is_err() {
            // Only ever an empty directory of ours.
            let _ = std::fs::remove_dir(&path);
        }
        let files: Vec<PathBuf> = made.with_context(context)?.iter().map(|file| self.shown(file)).collect();
        match self.format {
            Format::Json => shell.print_json(&json!({"created": files}))?,
            Format::Text => {
                let files: Vec<String> = files.iter().map(|f| harmless_line(&f.display().to_string())).collect();
                let build = match self.directory == Path::new(".") {
                    true => "skillctl build .".to_owned(),
                    false => format!("skillctl build {}", self.directory.display()),
                };
                shell.print(format!("Created {}. Next: edit both, then: {build}\n", files.join(" and ")))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn shown(&self, file: &str) -> PathBuf {
        if self.directory == Path::new(".") { file.into() } else { self.directory.join(file) }
    }
}
