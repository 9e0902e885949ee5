//! Where agents look for skills below a home directory.
//!
//! One row per agent; the paths are those that the vendors document. Several agents share `.agents/skills`.

use std::path::Path;

use crate::error::{Error, Result};

/// An agent that loads skills.
#[derive(Debug, PartialEq, Eq)]
pub struct Agent {
    /// The name for `--target`.
    pub name: &'static str,
    /// Other names that are accepted.
    pub aliases: &'static [&'static str],
    /// Its skills directory, relative to the user's home.
    pub user_dir: &'static str,
}

const fn agent(name: &'static str, aliases: &'static [&'static str], user_dir: &'static str) -> Agent {
    Agent { name, aliases, user_dir }
}

/// All agents, sorted by name. The first five of the Go tool keep its names and paths.
pub const AGENTS: &[Agent] = &[
    agent("amp", &[], ".config/agents/skills"),
    agent("antigravity", &[], ".gemini/antigravity/skills"),
    agent("augment", &[], ".augment/skills"),
    agent("bob", &["ibm-bob"], ".bob/skills"),
    agent("claude", &["claude-code"], ".claude/skills"),
    agent("cline", &[], ".agents/skills"),
    agent("codex", &[], ".codex/skills"),
    agent("continue", &[], ".continue/skills"),
    agent("copilot", &["github-copilot"], ".copilot/skills"),
    agent("cortex", &[], ".snowflake/cortex/skills"),
    agent("crush", &[], ".config/crush/skills"),
    agent("cursor", &[], ".cursor/skills"),
    agent("deepagents", &[], ".deepagents/agent/skills"),
    agent("docker-agent", &[], ".agents/skills"),
    agent("droid", &["factory"], ".factory/skills"),
    agent("gemini", &["gemini-cli"], ".gemini/skills"),
    agent("goose", &[], ".config/goose/skills"),
    agent("grok", &[], ".grok/skills"),
    agent("hermes", &[], ".hermes/skills"),
    agent("junie", &[], ".junie/skills"),
    agent("kilo", &["kilocode"], ".kilo/skills"),
    agent("kimi", &[], ".agents/skills"),
    agent("kiro", &["kiro-cli"], ".kiro/skills"),
    agent("letta", &[], ".letta/skills"),
    agent("openclaw", &[], ".openclaw/skills"),
    agent("opencode", &[], ".config/opencode/skills"),
    agent("openhands", &[], ".openhands/skills"),
    agent("pi", &[], ".pi/agent/skills"),
    agent("qoder", &[], ".qoder/skills"),
    agent("qwen", &["qwen-code"], ".qwen/skills"),
    agent("replit", &[], ".config/agents/skills"),
    agent("roo", &["roo-code"], ".roo/skills"),
    agent("rovodev", &[], ".rovodev/skills"),
    agent("tabnine", &[], ".tabnine/agent/skills"),
    agent("trae", &[], ".trae/skills"),
    agent("universal", &["agents"], ".agents/skills"),
    agent("vibe", &["mistral-vibe"], ".vibe/skills"),
    agent("warp", &[], ".agents/skills"),
    agent("windsurf", &[], ".codeium/windsurf/skills"),
    agent("zed", &[], ".agents/skills"),
    agent("zencoder", &[], ".zencoder/skills"),
];

impl Agent {
    /// Returns the agent of a name or alias, in any case.
    ///
    /// # Errors
    /// Names all agents, as the Go tool does.
    pub fn find(name: &str) -> Result<&'static Self> {
        let lower = name.to_ascii_lowercase();
        let known = |agent: &&Self| agent.name == lower || agent.aliases.contains(&lower.as_str());
        AGENTS.iter().find(known).ok_or_else(|| {
            let names: Vec<&str> = AGENTS.iter().map(|agent| agent.name).collect();
            Error::Unavailable {
                reason: format!("unknown target {name:?} (supported: {})", names.join(", ")),
                hint: None,
            }
        })
    }

    /// Returns the skills directory below `home`.
    pub fn dir(&self, home: &Path) -> std::path::PathBuf {
        home.join(self.user_dir)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn agents_of_the_go_tool_keep_their_places() {
        let cases = [
            ("claude", ".claude/skills"),
            ("Cursor", ".cursor/skills"),
            ("windsurf", ".codeium/windsurf/skills"),
            ("opencode", ".config/opencode/skills"),
            ("openclaw", ".openclaw/skills"),
            ("claude-code", ".claude/skills"),
        ];
        for (name, dir) in cases {
            assert_eq!(Agent::find(name).unwrap().user_dir, dir);
        }
    }

    #[test]
    fn the_table_is_sorted_and_names_are_unique() {
        let names: Vec<&str> = AGENTS.iter().map(|a| a.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
        assert!(
            Agent::find("nobody").unwrap_err().to_string().starts_with("unknown target \"nobody\" (supported: amp, ")
        );
    }
}
