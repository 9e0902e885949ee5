//! `validate`, and how findings are shown.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::build::open_skill;
use super::shell::{Format, NO, Shell};
use crate::card::FILE as CARD_FILE;
use crate::finding::{Finding, Severity};
use crate::frontmatter::FILE as SKILL_FILE;
use crate::ops::validate::validate;
use crate::output::harmless_line;

/// Check SKILL.md and skill.yaml against their specifications
///
/// Those are the Agent Skills specification and the SkillCard schema. Reports everything at once, with file, line,
/// column, rule and remedy. Exit status 1 if there is an error.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A skill directory, a skill.yaml or a SKILL.md
    path: PathBuf,
    /// Take warnings as errors
    #[arg(long)]
    strict: bool,
    /// How to print the findings
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let shown = self.path.display().to_string();
        let directory = directory(&self.path).with_context(|| format!("Validating {shown}"))?;
        let checked = open_skill(&directory)
            .and_then(|(dir, name)| validate(&dir, &name, self.strict))
            .with_context(|| format!("Validating {shown}"))?;
        let errors = checked.findings.iter().filter(|f| f.severity == Severity::Error).count();
        report(shell, &directory, &checked.findings, self.format)?;
        if errors > 0 {
            if self.format == Format::Text {
                shell.warn(format!("validation failed with {errors} error(s)"));
            }
            return Ok(ExitCode::from(NO));
        }
        if self.format == Format::Text {
            let file = match (directory == self.path, directory.join(CARD_FILE).exists()) {
                (false, _) => self.path.clone(),
                (true, true) => directory.join(CARD_FILE),
                (true, false) => directory.join(SKILL_FILE),
            };
            shell.print(format!("✓ {} is valid\n", harmless_line(&file.display().to_string())))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the skill's directory of a directory or of a file in it.
fn directory(path: &Path) -> Result<PathBuf> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Ok(path.to_owned());
    }
    match path.file_name().and_then(|name| name.to_str()) {
        Some(CARD_FILE | SKILL_FILE) => {}
        _ => anyhow::bail!("a directory, a {CARD_FILE} or a {SKILL_FILE} is expected"),
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    Ok(parent.map_or_else(|| PathBuf::from("."), Path::to_owned))
}

/// Prints findings: errors on stderr below a heading for each file, then warnings; as JSON on stdout.
pub fn report(shell: &Shell, directory: &Path, findings: &[Finding], format: Format) -> Result<()> {
    let errors: Vec<&Finding> = findings.iter().filter(|f| f.severity == Severity::Error).collect();
    if format == Format::Json {
        return shell.print_json(&json!({"valid": errors.is_empty(), "findings": findings}));
    }
    let mut files: Vec<&str> = errors.iter().map(|f| f.file.as_str()).collect();
    files.dedup();
    for file in files {
        let of_file: Vec<&&Finding> = errors.iter().filter(|f| f.file == file).collect();
        shell.warn(format!("✗ {} has {} error(s):", shown(directory, file), of_file.len()));
        for finding in of_file {
            shell.warn(lines(finding));
        }
    }
    warn(shell, directory, findings);
    Ok(())
}

/// Prints the warnings among the findings on stderr.
pub fn warn(shell: &Shell, directory: &Path, findings: &[Finding]) {
    for finding in findings.iter().filter(|f| f.severity == Severity::Warning) {
        let place = shown(directory, &place(finding));
        let (field, message) = (harmless_line(&finding.field), harmless_line(&finding.message));
        shell.note(format!(
            "warning: {place}: {field}: {message}  [{}]  {}",
            finding.rule,
            harmless_line(&finding.remedy)
        ));
    }
}

fn lines(finding: &Finding) -> String {
    let (field, message) = (harmless_line(&finding.field), harmless_line(&finding.message));
    format!("  {field}: {message}\n    {}  [{}]  {}", place(finding), finding.rule, harmless_line(&finding.remedy))
}

fn place(finding: &Finding) -> String {
    match (finding.line, finding.column) {
        (Some(line), Some(column)) => format!("{}:{line}:{column}", finding.file),
        (Some(line), None) => format!("{}:{line}", finding.file),
        _ => finding.file.clone(),
    }
}

fn shown(directory: &Path, file: &str) -> String {
    crate::output::shown(&directory.join(file))
}
