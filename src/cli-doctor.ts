import { Command } from 'commander'
import { openApi } from './cli-api.ts'
import { examples, withApi, type ApiOptions, type Cli } from './cli-options.ts'
import { withoutSecrets } from './cli-settings.ts'
import type { DataApi } from './data-api.ts'
import { error, ok, type Finding, type Result } from './finding.ts'
import { jsonLine, visible, type Terminal } from './terminal.ts'
import { TrackingError } from './tracking-error.ts'

/** `actorscope doctor`: examines an installation. */
export function doctorCommand(cli: Cli): Command {
  const command = new Command('doctor')
    .description('check an installation, and say what to do')
    .addHelpText('after', examples(`
actorscope doctor
DATABASE_URL=postgres://… ACTORSCOPE_URL=https://abc.supabase.co ACTORSCOPE_PUBLISHABLE_KEY=… actorscope doctor
actorscope doctor --json | jq -r 'select(.verdict != "ok") | .fix'`) + `
Prints a line a check: ✓ good, ! amiss, ✗ broken or not safe, and after → what to do. It changes nothing.
It looks at the database itself (DATABASE_URL; without one, the local stack's) and at the Data API.

Exit codes:
  0 nothing is broken   1 something is (✗)   2 the flags make no sense
`)
  return withApi(command).action(async (options: ApiOptions) => {
    for await (const { finding: found, ...rest } of findings(cli, options)) {
      const finding = { ...rest, finding: withoutSecrets(found, cli.environment) }
      await cli.terminal.print(options.json ? jsonLine(finding) : asLine(finding, cli.terminal))
      if (finding.verdict === 'error') process.exitCode = 1
    }
  })
}

async function* findings(cli: Cli, options: ApiOptions): AsyncGenerator<Finding> {
  yield* await ofTheDatabase(cli, options).catch((cause: unknown) => [failed('connection', cause)])
  yield await ofTheApi(cli, options)
  yield* ofTheCredentials(cli, options)
}

async function ofTheDatabase(cli: Cli, options: ApiOptions): Promise<Finding[]> {
  const { withDatabase } = await import('./cli-database.ts')
  const { examine } = await import('./doctor.ts')
  return withDatabase(cli, options, async (sql, name) =>
    [{ check: 'connection', verdict: 'ok', finding: name }, ...await examine(sql)])
}

/** The Data API with the publishable key alone: whether it answers, shows the log, and whether the key is one. */
async function ofTheApi(cli: Cli, options: ApiOptions): Promise<Finding> {
  return tryOut('Data API', cli, { ...options, email: undefined }, {}, async (api) => {
    await api.select('events', { select: 'event_id', limit: '0' })
    const { url } = api.access
    if (!await isSecret(api)) return ok(`${url} shows the log, and knows the publishable key`)
    return error('the publishable key is a secret one: whoever is given it may do anything',
      'Set ACTORSCOPE_PUBLISHABLE_KEY to the publishable key; where others have seen this one, replace it.')
  })
}

/** Each credential that there is: whether it opens what it should. */
async function* ofTheCredentials(cli: Cli, options: ApiOptions): AsyncGenerator<Finding> {
  const { ACTORSCOPE_SECRET_KEY, ACTORSCOPE_API_KEY, ACTORSCOPE_ACCESS_TOKEN, ACTORSCOPE_EMAIL } = cli.environment
  const { email = ACTORSCOPE_EMAIL, ...noEmail } = options
  if (ACTORSCOPE_SECRET_KEY) {
    yield await tryOut('secret key', cli, noEmail, { ACTORSCOPE_SECRET_KEY }, async (api) => (await isSecret(api)
      ? ok('it is the service role\'s')
      : error('it is accepted, but is no secret key', 'Set ACTORSCOPE_SECRET_KEY to a secret key of the project.')))
  }
  // A batch of nothing asks who is calling, and writes nothing.
  const call = async (api: DataApi) => {
    await api.rpc('track_events', { v2: [] })
    return ok('it may track events')
  }
  if (ACTORSCOPE_API_KEY) yield await tryOut('API key', cli, noEmail, { ACTORSCOPE_API_KEY }, call)
  if (ACTORSCOPE_ACCESS_TOKEN) yield await tryOut('access token', cli, noEmail, { ACTORSCOPE_ACCESS_TOKEN }, call)
  if (email) yield await tryOut('sign-in', cli, { ...noEmail, email }, {}, call)
}

/** Calls the API with the credentials that are given here and no others. */
async function tryOut(
  check: string, cli: Cli, options: ApiOptions, credentials: NodeJS.ProcessEnv, look: (api: DataApi) => Promise<Result>,
): Promise<Finding> {
  const none = { ACTORSCOPE_SECRET_KEY: '', ACTORSCOPE_API_KEY: '', ACTORSCOPE_ACCESS_TOKEN: '', ACTORSCOPE_EMAIL: '' }
  try {
    const api = await openApi({ ...cli, environment: { ...cli.environment, ...none, ...credentials } }, options)
    return { check, ...await look(api) }
  } catch (cause) {
    return failed(check, cause)
  }
}

/** Only the service role may read the hashes of keys. */
async function isSecret(api: DataApi): Promise<boolean> {
  return api.select('api_keys', { select: 'key_hash', limit: '0' }).then(() => true, (cause: unknown) => {
    if (cause instanceof TrackingError && cause.code === '42501') return false
    throw cause
  })
}

function failed(check: string, cause: unknown): Finding {
  if (!(cause instanceof TrackingError)) throw cause
  return { check, verdict: 'error', finding: cause.message, ...(cause.hint && { fix: cause.hint }) }
}

const signs = { ok: '✓', warning: '!', error: '✗' }

function asLine({ check, verdict, finding, fix }: Finding, { colors }: Terminal): string {
  const color = { ok: colors.green, warning: colors.yellow, error: colors.red }[verdict]
  const line = `${color(signs[verdict])} ${check.padEnd(12)}  ${visible(finding)}`
  return fix ? `${line}  ${colors.bold('→')} ${visible(fix)}` : line
}
