import { arch, platform, release } from 'node:os'
import process from 'node:process'

/** Variables of the environment by name. */
type Environment = { readonly [name: string]: string | undefined }

// What CI services set, whatever else they do: the names that the package ci-info goes by.
const ciVariables = ['CI', 'CONTINUOUS_INTEGRATION', 'BUILD_NUMBER', 'BUILD_ID', 'CI_NAME', 'CI_APP_ID', 'CI_BUILD_ID', 'CI_BUILD_NUMBER', 'RUN_ID', 'TF_BUILD', 'TEAMCITY_VERSION', 'CODEBUILD_BUILD_ARN']

// What coding agents set for the commands that they run. An editor's own terminal is no agent.
const agentVariables = [
  'AI_AGENT', 'CLAUDECODE', 'CLAUDE_CODE_SESSION_ID', 'CODEX_CI', 'CODEX_SANDBOX', 'CODEX_SHELL', 'CODEX_THREAD_ID',
  'CURSOR_AGENT', 'CURSOR_CONVERSATION_ID', 'GEMINI_CLI', 'OPENCODE', 'OPENCODE_PID', 'ANTIGRAVITY_AGENT', 'COPILOT_CLI',
  'COPILOT_AGENT_SESSION_ID', 'CLINE_ACTIVE', 'KILO_RUN_ID', 'KIRO_SESSION_ID', 'GOOSE_TERMINAL', 'AUGMENT_AGENT', 'PI_CODING_AGENT',
]

/**
 * Tells where a command runs: the context of its events. Nothing in it says who runs it, or in which folder.
 *
 * @param version the program's own
 */
export function invocationContext(version: string | undefined, env: Environment = process.env): { [key: string]: string | boolean } {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions()
  return {
    ...(version === undefined ? {} : { cli_version: version }),
    node_version: process.version,
    os_platform: platform(),
    os_arch: arch(),
    os_release: release(),
    ...(timeZone ? { timezone: timeZone } : {}),
    is_ci: env.CI !== 'false' && ciVariables.some((name) => isSet(env[name])),
    is_tty: Boolean(process.stdout.isTTY),
    invocation_source: 'cli',
    agent_invoker: agentVariables.some((name) => isSet(env[name])),
  }
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && !['', '0', 'false'].includes(value.toLowerCase())
}
