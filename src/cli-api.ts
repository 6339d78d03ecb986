import type { ApiOptions, Cli } from './cli-options.ts'
import { readAccess, type Caller } from './cli-settings.ts'
import { DataApi } from './data-api.ts'
import { TrackingError } from './tracking-error.ts'

/**
 * Opens the API for a command, as whom the flags and the environment say.
 *
 * @throws {TrackingError} `setting_invalid`, `setting_missing`, `unauthenticated`.
 */
export async function openApi(cli: Cli, options: ApiOptions, caller?: Caller): Promise<DataApi> {
  const access = readAccess(options, cli.environment, caller)
  if (access.login && access.login.password === undefined) {
    access.login.password = await askPassword(access.login.email, cli)
  }
  return new DataApi(access, cli.interrupted)
}

/**
 * Opens the API for a command that reads: a key that is not valid would read as nobody does, nothing.
 *
 * @throws {TrackingError} `invalid_api_key`; and as `openApi` does.
 */
export async function openReader(cli: Cli, options: ApiOptions): Promise<DataApi> {
  const api = await openApi(cli, options)
  if (api.access.apiKey) await api.rpc('track_events', { v2: [] }) // asks who is calling, and writes nothing
  return api
}

async function askPassword(email: string, { interrupted }: Cli): Promise<string> {
  if (process.stdin.isTTY && process.stderr.isTTY) return askUnseen(`Password of ${email}: `, interrupted)
  throw new TrackingError('setting_missing', {
    details: 'ACTORSCOPE_PASSWORD is not set.',
    hint: 'Passwords are no flags, since the list of processes shows those; in a terminal it is asked for.',
  })
}

const RETURN = ['\r', '\n', '\u0004'], DELETE = ['\u007f', '\b'], CTRL_C = '\u0003'

/** Asks for what nobody shall see, on stderr; the terminal does not echo meanwhile. */
async function askUnseen(question: string, interrupted: AbortSignal): Promise<string> {
  const { stdin, stderr } = process
  stdin.setRawMode(true).setEncoding('utf8') // before the question, so that no quick answer is seen
  stderr.write(question)
  let answer = ''
  try {
    return await new Promise<string>((done, fail) => {
      interrupted.addEventListener('abort', () => fail(interrupted.reason))
      stdin.on('end', () => done(answer)).on('data', (characters: string) => {
        for (const character of characters) {
          if (RETURN.includes(character)) return done(answer)
          if (character === CTRL_C) process.kill(process.pid, 'SIGINT')
          else answer = DELETE.includes(character) ? answer.slice(0, -1) : answer + character
        }
      })
    })
  } finally {
    stdin.removeAllListeners('data').pause().setRawMode(false)
    stderr.write('\n')
  }
}
