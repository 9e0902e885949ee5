//! Where agents look for skills: of a user, of a project, and for all users of a machine.
//!
//! One row per agent; the paths are those that the vendors document. Several agents share a directory.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What `$XDG_CONFIG_HOME` is where it is not set.
const CONFIG_HOME: (&str, &str) = ("$XDG_CONFIG_HOME", "~/.config");

/// An agent that loads skills.
#[derive(Debug, PartialEq, Eq)]
pub struct Agent {
    /// The name for `--target`.
    pub name: &'static str,
    /// Other names that are accepted.
    pub aliases: &'static [&'static str],
    /// Its skills directory in a project, relative to the project's root.
    pub project: &'static str,
    /// Its skills directory of a user, in the shell's notation; empty where it has none.
    user: &'static str,
    /// Its skills directory for all users, where it has one.
    pub system: Option<&'static str>,
    /// What is there where a user has the agent, in the shell's notation; else the directory above its skills.
    marker: Option<&'static str>,
}

const fn agent(
    name: &'static str,
    aliases: &'static [&'static str],
    project: &'static str,
    user: &'static str,
) -> Agent {
    Agent { name, aliases, project, user, system: None, marker: None }
}

impl Agent {
    const fn system(self, dir: &'static str) -> Self {
        Self { system: Some(dir), ..self }
    }

    const fn marker(self, marker: &'static str) -> Self {
        Self { marker: Some(marker), ..self }
    }
}

/// All agents, sorted by name. The first five of the Go tool keep its names and paths.
#[rustfmt::skip]
pub const AGENTS: &[Agent] = &[
    agent("adal", &[], ".adal/skills", "~/.adal/skills"),
    agent("aider-desk", &[], ".aider-desk/skills", "~/.aider-desk/skills"),
    agent("amp", &[], ".agents/skills", "$XDG_CONFIG_HOME/agents/skills").marker("$XDG_CONFIG_HOME/amp"),
    agent("antigravity", &[], ".agents/skills", "~/.gemini/antigravity/skills"),
    agent("astrbot", &[], "data/skills", "~/.astrbot/data/skills").marker("~/.astrbot"),
    agent("augment", &[], ".augment/skills", "~/.augment/skills"),
    agent("autohand", &[], ".autohand/skills", "${AUTOHAND_HOME:-~/.autohand}/skills"),
    agent("bob", &["ibm-bob"], ".bob/skills", "~/.bob/skills"),
    agent("claude", &["claude-code"], ".claude/skills", "${CLAUDE_CONFIG_DIR:-~/.claude}/skills").system("/etc/claude-code/.claude/skills"),
    agent("cline", &[], ".agents/skills", "~/.agents/skills").marker("~/.cline"),
    agent("codeartsdoer", &[], ".codeartsdoer/skills", "~/.codeartsdoer/skills"),
    agent("codebuddy", &[], ".codebuddy/skills", "~/.codebuddy/skills"),
    agent("codemaker", &[], ".codemaker/skills", "~/.codemaker/skills"),
    agent("codestudio", &[], ".codestudio/skills", "~/.codestudio/skills"),
    agent("codewhale", &[], ".codewhale/skills", "${CODEWHALE_HOME:-~/.codewhale}/skills"),
    agent("codex", &[], ".agents/skills", "${CODEX_HOME:-~/.codex}/skills").system("/etc/codex/skills"),
    agent("commandcode", &["command-code"], ".commandcode/skills", "~/.commandcode/skills"),
    agent("continue", &[], ".continue/skills", "~/.continue/skills"),
    agent("copilot", &["github-copilot"], ".agents/skills", "~/.copilot/skills"),
    agent("cortex", &[], ".cortex/skills", "~/.snowflake/cortex/skills"),
    agent("crush", &[], ".crush/skills", "$XDG_CONFIG_HOME/crush/skills"),
    agent("cursor", &[], ".agents/skills", "~/.cursor/skills"),
    agent("deepagents", &[], ".agents/skills", "~/.deepagents/agent/skills").marker("~/.deepagents"),
    agent("devin", &[], ".devin/skills", "$XDG_CONFIG_HOME/devin/skills"),
    agent("dexto", &[], ".agents/skills", "~/.agents/skills").marker("~/.dexto"),
    agent("docker-agent", &[], ".agents/skills", "~/.agents/skills").marker("~/.cagent"),
    agent("droid", &["factory"], ".agents/skills", "~/.factory/skills"),
    agent("eve", &[], "agent/skills", ""),
    agent("firebender", &[], ".agents/skills", "~/.firebender/skills"),
    agent("forge", &[], ".forge/skills", "~/.forge/skills"),
    agent("fx", &[], ".fx/skills", "~/.fx/skills"),
    agent("gemini", &["gemini-cli"], ".agents/skills", "~/.gemini/skills"),
    agent("goose", &[], ".goose/skills", "$XDG_CONFIG_HOME/goose/skills"),
    agent("grok", &[], ".grok/skills", "${GROK_HOME:-~/.grok}/skills"),
    agent("hermes", &[], ".hermes/skills", "${HERMES_HOME:-~/.hermes}/skills"),
    agent("iflow", &[], ".iflow/skills", "~/.iflow/skills"),
    agent("inferencesh", &[], ".inferencesh/skills", "~/.inferencesh/skills"),
    agent("jazz", &[], ".jazz/skills", "~/.jazz/skills"),
    agent("junie", &[], ".junie/skills", "~/.junie/skills"),
    agent("kilo", &["kilocode"], ".agents/skills", "~/.kilo/skills"),
    agent("kimchi", &[], ".kimchi/skills", "$XDG_CONFIG_HOME/kimchi/harness/skills").marker("$XDG_CONFIG_HOME/kimchi"),
    agent("kimi", &["kimi-cli"], ".agents/skills", "~/.agents/skills").marker("~/.kimi"),
    agent("kiro", &["kiro-cli"], ".kiro/skills", "~/.kiro/skills"),
    agent("kode", &[], ".kode/skills", "~/.kode/skills"),
    agent("letta", &[], ".agents/skills", "~/.letta/skills"),
    agent("lingma", &[], ".lingma/skills", "~/.lingma/skills"),
    agent("loaf", &[], ".agents/skills", "~/.agents/skills").marker("~/.loaf"),
    agent("mcpjam", &[], ".mcpjam/skills", "~/.mcpjam/skills"),
    agent("minimax", &[], ".minimax/skills", "~/.minimax/skills"),
    agent("moxby", &[], ".moxby/skills", "~/.moxby/skills"),
    agent("mux", &[], ".mux/skills", "~/.mux/skills"),
    agent("neovate", &[], ".neovate/skills", "~/.neovate/skills"),
    agent("ona", &[], ".ona/skills", "~/.ona/skills"),
    agent("openclaw", &["clawdbot", "moltbot"], "skills", "~/.openclaw/skills"),
    agent("opencode", &[], ".agents/skills", "$XDG_CONFIG_HOME/opencode/skills"),
    agent("openhands", &[], ".openhands/skills", "~/.openhands/skills"),
    agent("pi", &[], ".pi/skills", "~/.pi/agent/skills"),
    agent("pochi", &[], ".pochi/skills", "~/.pochi/skills"),
    agent("posit", &[], ".posit/assistant/skills", "~/.posit/assistant/skills").marker("~/.posit"),
    agent("promptscript", &[], ".agents/skills", ""),
    agent("qoder", &[], ".qoder/skills", "~/.qoder/skills"),
    agent("qoder-cn", &[], ".qoder/skills", "~/.qoder-cn/skills"),
    agent("qwen", &["qwen-code"], ".qwen/skills", "~/.qwen/skills"),
    agent("reasonix", &[], ".reasonix/skills", "~/.reasonix/skills"),
    agent("replit", &[], ".agents/skills", "$XDG_CONFIG_HOME/agents/skills").marker("$XDG_CONFIG_HOME/replit"),
    agent("roo", &["roo-code"], ".roo/skills", "~/.roo/skills"),
    agent("rovodev", &[], ".rovodev/skills", "~/.rovodev/skills"),
    agent("sarvam", &[], ".agents/skills", "~/.agents/skills").marker("~/.sarvam"),
    agent("tabnine", &[], ".tabnine/agent/skills", "~/.tabnine/agent/skills").marker("~/.tabnine"),
    agent("terramind", &[], ".terramind/skills", "~/.terramind/skills"),
    agent("tinycloud", &[], ".tinycloud/skills", "~/.tinycloud/skills"),
    agent("trae", &[], ".trae/skills", "~/.trae/skills"),
    agent("trae-cn", &[], ".trae/skills", "~/.trae-cn/skills"),
    agent("universal", &["agents"], ".agents/skills", "~/.agents/skills"),
    agent("vibe", &["mistral-vibe"], ".vibe/skills", "${VIBE_HOME:-~/.vibe}/skills"),
    agent("warp", &[], ".agents/skills", "~/.agents/skills").marker("~/.warp"),
    agent("windsurf", &[], ".windsurf/skills", "~/.codeium/windsurf/skills"),
    agent("zcode", &[], ".zcode/skills", "~/.zcode/skills"),
    agent("zed", &[], ".agents/skills", "~/.agents/skills").marker("$XDG_CONFIG_HOME/zed"),
    agent("zencoder", &["zenflow"], ".zencoder/skills", "~/.zencoder/skills"),
];

/// The agent whose directory others link to.
pub const SHARED: &str = "universal";

/// Least Jaro-Winkler similarity of a name that somebody may have meant.
const ALIKE: f64 = 0.85;

/// What a user's directories depend on.
#[derive(Debug, Clone, Copy)]
pub struct Home<'a> {
    /// The home directory.
    pub path: &'a Path,
    /// The value of an environment variable, where it is set to an absolute path.
    pub var: fn(&str) -> Option<PathBuf>,
}

impl<'a> Home<'a> {
    /// Returns a home directory in which no variable says otherwise: that of a container.
    pub fn plain(path: &'a Path) -> Self {
        Self { path, var: |_| None }
    }
}

impl Agent {
    /// Returns the agent of a name or alias, in any case.
    ///
    /// # Errors
    /// Names all agents, the most similar ones first.
    pub fn find(name: &str) -> Result<&'static Self> {
        let lower = name.to_ascii_lowercase();
        let known = |agent: &&Self| agent.name == lower || agent.aliases.contains(&lower.as_str());
        AGENTS.iter().find(known).ok_or_else(|| {
            let names = nearest(&lower);
            let near = if names.is_empty() { String::new() } else { format!(" (near: {})", names.join(", ")) };
            let meant = names.first().map(|first| format!("is {first} meant? "));
            Error::Unavailable {
                reason: format!("unknown target {name:?}{near}"),
                hint: Some(meant.unwrap_or_default() + "skillctl agents shows them all, with their directories"),
            }
        })
    }

    /// Returns its skills directory of a user; `None` where it has none.
    pub fn user_dir(&self, home: Home<'_>) -> Option<PathBuf> {
        (!self.user.is_empty()).then(|| expand(self.user, home))
    }

    /// Returns what is there where a user has the agent.
    pub fn marker_path(&self, home: Home<'_>) -> Option<PathBuf> {
        match self.marker {
            Some(marker) => Some(expand(marker, home)),
            None => self.user_dir(home)?.parent().map(Path::to_owned),
        }
    }
}

/// Expands `~/…`, `$XDG_CONFIG_HOME/…` and `${VARIABLE:-~/…}/…`.
fn expand(text: &str, home: Home<'_>) -> PathBuf {
    if let Some(rest) = text.strip_prefix("~/") {
        return home.path.join(rest);
    }
    let (variable, default, rest) = match text.strip_prefix("${").and_then(|rest| rest.split_once("}/")) {
        Some((inner, rest)) => {
            let (variable, default) = inner.split_once(":-").unwrap_or((inner, "~/"));
            (variable, default, rest)
        }
        None => {
            let (variable, default) = CONFIG_HOME;
            (&variable[1..], default, text.trim_start_matches(variable).trim_start_matches('/'))
        }
    };
    (home.var)(variable).unwrap_or_else(|| expand(default, home)).join(rest)
}

/// Returns the names of the agents that are much like `name`, the likest first. All would be eighty.
fn nearest(name: &str) -> Vec<&'static str> {
    let likeness = |agent: &Agent| {
        let own = std::iter::once(&agent.name).chain(agent.aliases);
        let most = own.map(|own| strsim::jaro_winkler(name, own)).fold(0.0, f64::max);
        (most >= ALIKE).then_some((most, agent.name))
    };
    let mut all: Vec<(f64, &str)> = AGENTS.iter().filter_map(likeness).collect();
    all.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    all.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var(name: &str) -> Option<PathBuf> {
        let set = [("XDG_CONFIG_HOME", "/xdg"), ("CLAUDE_CONFIG_DIR", "/claude"), ("CODEX_HOME", "/codex")];
        set.into_iter().find(|(own, _)| *own == name).map(|(_, value)| value.into())
    }

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
        let home = Path::new("/home/u");
        for (name, dir) in cases {
            let agent = Agent::find(name).expect(name);
            assert_eq!(agent.user_dir(Home::plain(home)), Some(home.join(dir)));
        }
    }

    #[test]
    fn directories_follow_the_environment() {
        let path = Path::new("/home/u");
        let cases = [
            ("claude", "/claude/skills", "/claude"),
            ("codex", "/codex/skills", "/codex"),
            ("goose", "/xdg/goose/skills", "/xdg/goose"),
            ("zed", "/home/u/.agents/skills", "/xdg/zed"),
            ("grok", "/home/u/.grok/skills", "/home/u/.grok"),
            ("pi", "/home/u/.pi/agent/skills", "/home/u/.pi/agent"),
        ];
        for (name, dir, marker) in cases {
            let (agent, home) = (Agent::find(name).expect(name), Home { path, var });
            let found = (agent.user_dir(home), agent.marker_path(home));
            assert_eq!(found, (Some(dir.into()), Some(marker.into())), "{name}");
        }
        assert_eq!(Agent::find("eve").expect("eve").user_dir(Home::plain(path)), None);
    }

    #[test]
    fn the_table_is_sorted_and_names_are_unique() {
        let names: Vec<&str> = AGENTS.iter().map(|agent| agent.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        let mut all: Vec<&str> = AGENTS.iter().flat_map(|agent| agent.aliases).copied().chain(names).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "a name stands for two agents");
        for agent in AGENTS {
            assert!(agent.project.ends_with("skills") && !agent.project.starts_with('/'), "{agent:?}");
            assert!(agent.user.is_empty() || agent.user.ends_with("/skills"), "{agent:?}");
            assert!(agent.system.is_none_or(|dir| dir.starts_with("/etc/")), "{agent:?}");
        }
    }

    #[test]
    fn an_unknown_agent_gets_the_nearest_first() {
        let cases = [
            ("cluade", "unknown target \"cluade\" (near: claude"),
            ("geminicli", "unknown target \"geminicli\" (near: gemini"),
            ("nobody", "unknown target \"nobody\""),
        ];
        for (name, begins) in cases {
            let error = Agent::find(name).expect_err(name).to_string();
            assert!(error.starts_with(begins) && error.len() < 80, "{error}");
        }
    }
}
