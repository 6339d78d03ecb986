import { resolve } from 'node:path'
import { StackError } from './errors.ts'

/** How the local stack is set up, by environment variables. */
export type Settings = {
  /** ACTORSCOPE_API_PORT; default 54321, Supabase's own. */
  apiPort: number
  /** ACTORSCOPE_DB_PORT; default 54322, Supabase's own. Not used with a `databaseUrl`. */
  databasePort: number
  /** ACTORSCOPE_DATA_DIR; default `.actorscope` in the project. */
  dataDir: string
  /** ACTORSCOPE_DEMO_PAST: whether a new demo world comes with half a year of events; `off` leaves them out. */
  hasPast?: boolean
  /** DATABASE_URL: a Postgres 15 to 18 that runs already, instead of the embedded one. */
  databaseUrl?: string
}

/** The folder of the project. */
export const projectDir = resolve(import.meta.dirname, '..')

/**
 * Reads the settings from the environment. A variable that is empty counts as not set.
 *
 * @throws {StackError} `setting_invalid`, naming the variable and what it may be.
 */
export function readSettings(environment: NodeJS.ProcessEnv): Settings {
  const settings: Settings = {
    apiPort: readPort(environment, 'ACTORSCOPE_API_PORT', 54321),
    databasePort: readPort(environment, 'ACTORSCOPE_DB_PORT', 54322),
    dataDir: resolve(projectDir, environment.ACTORSCOPE_DATA_DIR || '.actorscope'),
    hasPast: readSwitch(environment, 'ACTORSCOPE_DEMO_PAST'),
  }
  const databaseUrl = readDatabaseUrl(environment)
  if (databaseUrl) return { ...settings, databaseUrl }
  if (settings.apiPort === settings.databasePort) {
    throw invalid(`ACTORSCOPE_API_PORT and ACTORSCOPE_DB_PORT are both ${settings.apiPort}: they must differ.`)
  }
  return settings
}

function readPort(environment: NodeJS.ProcessEnv, name: string, otherwise: number): number {
  const text = environment[name]
  if (!text) return otherwise
  const port = Number(text)
  if (/^\d+$/.test(text) && port >= 1 && port <= 65535) return port
  throw invalid(`${name} is "${text}": it must be a port from 1 to 65535.`)
}

function readSwitch(environment: NodeJS.ProcessEnv, name: string): boolean {
  const text = environment[name]
  if (!text || text === 'on') return true
  if (text === 'off') return false
  throw invalid(`${name} is "${text}": it must be on or off.`)
}

function readDatabaseUrl({ DATABASE_URL: text }: NodeJS.ProcessEnv): string | undefined {
  if (!text) return undefined
  if (URL.canParse(text) && /^postgres(ql)?:$/.test(new URL(text).protocol) && new URL(text).hostname) return text
  throw invalid('DATABASE_URL must look like postgres://login:password@host:5432/database.')
}

function invalid(message: string): StackError {
  return new StackError('setting_invalid', message)
}
