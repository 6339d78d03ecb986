import type { ApiOptions } from './cli-options.ts'
import { isLocal } from './local.ts'
import { TrackingError } from './tracking-error.ts'

/** The local stack's publishable key; it opens nothing else. */
const localPublishableKey = 'sb_publishable_actorscope_local'

/** Where the API is, and what its requests are sent with. */
export type Access = {
  /** The project's address, without a slash at its end. */
  url: string
  /** The header `apikey`: the publishable key, or the secret one. */
  key: string
  accessToken?: string
  apiKey?: string
  /** Signs in; without a password it must be asked for. */
  login?: { email: string, password?: string }
}

/** Whom a command needs: somebody, if there is anybody; a signed-in person; or the service role. */
export type Caller = 'anybody' | 'person' | 'service'

/**
 * Finds out where the API is and who calls. People go before API keys, and those before the secret key: a command
 * has no more rights than it needs.
 *
 * @throws {TrackingError} `setting_invalid`, `setting_missing`.
 */
export function readAccess(options: ApiOptions, environment: NodeJS.ProcessEnv, caller: Caller = 'anybody'): Access {
  const url = readUrl(options, environment)
  const { ACTORSCOPE_SECRET_KEY, ACTORSCOPE_ACCESS_TOKEN, ACTORSCOPE_API_KEY, ACTORSCOPE_EMAIL } = environment
  if (caller === 'service') return { url, key: ACTORSCOPE_SECRET_KEY || missing('ACTORSCOPE_SECRET_KEY') }
  const login = (email: string) => ({ email, password: environment.ACTORSCOPE_PASSWORD || undefined })
  const key = () => readPublishableKey(url, options, environment)

  if (options.email) return { url, key: key(), login: login(options.email) }
  if (ACTORSCOPE_ACCESS_TOKEN) return { url, key: key(), accessToken: ACTORSCOPE_ACCESS_TOKEN }
  if (ACTORSCOPE_EMAIL) return { url, key: key(), login: login(ACTORSCOPE_EMAIL) }
  if (caller === 'person') throw signInFirst()
  if (ACTORSCOPE_API_KEY) return { url, key: key(), apiKey: readApiKey(ACTORSCOPE_API_KEY) }
  return { url, key: ACTORSCOPE_SECRET_KEY || key() }
}

function readApiKey(text: string): string {
  if (/^[\x21-\x7e]+$/.test(text)) return text
  throw new TrackingError('setting_invalid', {
    details: 'ACTORSCOPE_API_KEY is no API key: it holds blanks, or what is not ASCII.',
    hint: 'Set it to the key alone, as create_api_key answered it.',
  })
}

/**
 * Finds out whom a question is put to: the API, where there are credentials for it, since they give the rights of one
 * caller alone; else Postgres itself.
 *
 * @throws {TrackingError} `unauthenticated`, where there is neither.
 */
export function readDoor(options: ApiOptions, environment: NodeJS.ProcessEnv): 'api' | 'database' {
  const hasCredentials = options.email || credentials.some((variable) => environment[variable])
  if (hasCredentials) return 'api'
  if (environment.DATABASE_URL) return 'database'
  throw new TrackingError('unauthenticated', {
    details: 'Nobody asks: there are no credentials, and no DATABASE_URL.',
    hint: 'Set ACTORSCOPE_EMAIL and ACTORSCOPE_PASSWORD, ACTORSCOPE_API_KEY, or DATABASE_URL to an analyst\'s login.',
  })
}

const credentials = ['ACTORSCOPE_ACCESS_TOKEN', 'ACTORSCOPE_EMAIL', 'ACTORSCOPE_API_KEY', 'ACTORSCOPE_SECRET_KEY']

/** The error for a command that only a person may give. */
function signInFirst(): TrackingError {
  return new TrackingError('unauthenticated', {
    details: 'Nobody is signed in.',
    hint: 'Set ACTORSCOPE_EMAIL and ACTORSCOPE_PASSWORD, or ACTORSCOPE_ACCESS_TOKEN; API keys may not do this.',
  })
}

function readUrl(options: ApiOptions, environment: NodeJS.ProcessEnv): string {
  const text = options.url || environment.ACTORSCOPE_URL || environment.SUPABASE_URL || localUrl(environment)
  const isUrl = URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)
  if (isUrl && new URL(text).username === '') return text.replace(/\/+$/, '')
  throw new TrackingError('setting_invalid', {
    details: isUrl ? 'The URL has a login in it.' : `The URL "${text}" is none.`,
    hint: 'Set ACTORSCOPE_URL or --url to the project\'s, such as https://abc.supabase.co.',
  })
}

function localUrl({ ACTORSCOPE_API_PORT }: NodeJS.ProcessEnv): string {
  return `http://127.0.0.1:${ACTORSCOPE_API_PORT || 54321}`
}

function readPublishableKey(url: string, options: ApiOptions, environment: NodeJS.ProcessEnv): string {
  const key = options.publishableKey || environment.ACTORSCOPE_PUBLISHABLE_KEY
    || environment.SUPABASE_PUBLISHABLE_KEY || environment.SUPABASE_ANON_KEY
  return key || (isLocal(url) ? localPublishableKey : missing('ACTORSCOPE_PUBLISHABLE_KEY'))
}

/**
 * Finds the database: DATABASE_URL, or the local stack's own where the API is the local stack's.
 *
 * @throws {TrackingError} `setting_invalid`, `setting_missing`.
 */
export function readDatabaseUrl(options: ApiOptions, environment: NodeJS.ProcessEnv): string {
  const { DATABASE_URL: text, ACTORSCOPE_DB_PORT } = environment
  if (!text && readUrl(options, environment) === localUrl(environment)) {
    return `postgres://postgres:postgres@127.0.0.1:${ACTORSCOPE_DB_PORT || 54322}/postgres`
  }
  if (!text) return missing('DATABASE_URL')
  if (URL.canParse(text) && /^postgres(ql)?:$/.test(new URL(text).protocol) && new URL(text).hostname) return text
  throw new TrackingError('setting_invalid', {
    details: 'DATABASE_URL is no address of a database.',
    hint: 'It looks like postgres://login:password@host:5432/database.',
  })
}

const missingHints: Record<string, string> = {
  ACTORSCOPE_PUBLISHABLE_KEY: 'Supabase\'s dashboard shows it under Settings, API Keys.',
  ACTORSCOPE_SECRET_KEY: 'The service role\'s: Supabase\'s dashboard shows it under Settings, API Keys.',
  DATABASE_URL: 'Set it to postgres://login:password@host:5432/database; Supabase\'s dashboard shows it under Connect.',
}

function missing(variable: string): never {
  throw new TrackingError('setting_missing', { details: `${variable} is not set.`, hint: missingHints[variable] })
}

const secretVariables = [
  'ACTORSCOPE_API_KEY', 'ACTORSCOPE_ACCESS_TOKEN', 'ACTORSCOPE_SECRET_KEY', 'ACTORSCOPE_PASSWORD']
/** What everybody knows is no secret, and stands in sentences: the demo world's password, and the local database's. */
const known = ['password', 'postgres']

/** Takes the environment's secrets out of a text, should they have got into it. */
export function withoutSecrets(text: string, environment: NodeJS.ProcessEnv): string {
  const { DATABASE_URL = '' } = environment
  const login = URL.canParse(DATABASE_URL) ? new URL(DATABASE_URL).password : ''
  const secrets = [...secretVariables.map((name) => environment[name] ?? ''), login, unescaped(login)]
  return secrets
    .filter((secret) => secret !== '' && !known.includes(secret))
    .reduce((safe, secret) => safe.replaceAll(secret, '•••'), text)
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
