import { errorOf, isDatabases, request, type Answer } from './answer.ts'
import type { Access } from './cli-settings.ts'
import { isLocal } from './local.ts'
import { isStableName, TrackingError } from './tracking-error.ts'

/** How long an answer may take, in milliseconds. */
const TIMEOUT = 60_000
/** A token that ends sooner than this, in milliseconds, is renewed. */
const RENEW_BEFORE = 60_000

type Session = { accessToken: string, expiresAt: number }

/** Supabase's Data API, spoken to as one caller: signs in when it must, and again before the token ends. */
export class DataApi {
  private session: Promise<Session> | undefined

  constructor(
    readonly access: Access,
    private readonly interrupted: AbortSignal,
    private readonly now: () => number = Date.now,
  ) {}

  /**
   * Calls a function of the database.
   *
   * @throws {TrackingError} with the database's stable code; `network_error`, where nothing answers; see `toError`.
   */
  async rpc<T>(name: string, args: object): Promise<T> {
    return this.take<T>(await this.post(`/rest/v1/rpc/${name}`, JSON.stringify(args)))
  }

  /**
   * Calls a function of another schema that answers rows, and takes `limit` of them, or all. Errors are those of
   * `rpc`; `too_many_rows`, where the API gives fewer than there are.
   */
  async rows<T>(schema: string, name: string, args: object, limit?: number): Promise<T[]> {
    const path = `/rest/v1/rpc/${name}${limit === undefined ? '' : `?limit=${limit}`}`
    const headers = { ...await this.headers(), 'content-profile': schema, prefer: 'count=exact' }
    const answer = await this.send('POST', path, headers, JSON.stringify(args))
    const rows = this.take<T[]>(answer)
    if (answer.status !== 206 || rows.length === limit) return rows
    throw new TrackingError('too_many_rows', {
      details: `The answer has more rows than the API gives at once, which is ${rows.length}.`,
      hint: 'Ask for less, with --since and --until for instance; Postgres itself (DATABASE_URL) gives all.' })
  }

  /** Reads rows of a table or view; `query` holds PostgREST's parameters. Errors are those of `rpc`. */
  async select<T>(from: string, query: Record<string, string>): Promise<T[]> {
    const path = `/rest/v1/${from}?${new URLSearchParams(query)}`
    return this.take<T[]>(await this.send('GET', path, await this.headers()))
  }

  /** Posts JSON, and answers whatever came back, if anything did; of signing in, where that failed. */
  async post(path: string, json: string): Promise<Answer> {
    try {
      return await this.send('POST', path, await this.headers(), json)
    } catch (cause) {
      if (cause instanceof TrackingError) return { status: cause.status ?? 0, cause }
      throw cause
    }
  }

  /** The caller's JWT, where the caller is a person. */
  async accessToken(): Promise<string | undefined> {
    const { accessToken, login } = this.access
    if (!login) return accessToken
    const current = await this.session
    if (!current || current.expiresAt - RENEW_BEFORE < this.now()) {
      this.session = this.signIn(login)
      this.session.catch(() => { this.session = undefined })
    }
    return (await this.session)?.accessToken
  }

  /** An answer that is no success, as an error: the database's and PostgREST's codes, and hints for a terminal. */
  toError(answer: Answer): TrackingError {
    if (answer.cause instanceof TrackingError) return answer.cause
    const { code, error_code, message, msg, details, hint } = answer.body ?? {}
    const { status } = answer
    if (error_code) return new TrackingError(error_code, { status, details: msg, hint: hints[error_code] })
    if (isDatabases(answer.body) || status === 0) return this.forTerminal(errorOf(answer))
    if (isStableName(message)) return new TrackingError(message, { status, details, hint })
    if (typeof code === 'string') {
      const said = sentences(message, details)
      const isText = /json|Unicode|numeric/.test(said ?? '')
      return new TrackingError(code, { status, details: said, hint: hint ?? hints[isText ? 'json' : code] })
    }
    const name = names[status] ?? 'unexpected_answer'
    const said = sentences(`The answer was ${status}`, message)
    return new TrackingError(name, { status, details: said, hint: hints[name] })
  }

  /** The same error, with what helps in a terminal. */
  forTerminal(error: TrackingError): TrackingError {
    if (error.code === 'network_error') return unreachable(this.access.url, error.cause)
    const { code, status, details = sayings[code], hint, cause } = error
    return new TrackingError(code, { status, details, hint: hints[code] ?? hint, cause })
  }

  private take<T>(answer: Answer): T {
    if (answer.status >= 200 && answer.status < 300 && answer.body !== undefined) return answer.body as T
    throw this.toError(answer)
  }

  private async headers(): Promise<Record<string, string>> {
    const { key, apiKey } = this.access
    // Supabase's old keys are JWTs, and PostgREST wants them as tokens too.
    const token = await this.accessToken() ?? (isJwt(key) ? key : undefined)
    return { apikey: key, ...(apiKey && { 'x-api-key': apiKey }), ...(token && { authorization: `Bearer ${token}` }) }
  }

  private async signIn(login: { email: string, password?: string }): Promise<Session> {
    const headers = { apikey: this.access.key }
    const answer = await this.send('POST', '/auth/v1/token?grant_type=password', headers, JSON.stringify(login))
    const { access_token, expires_in } = this.take<{ access_token?: string, expires_in?: number }>(answer)
    if (!access_token) throw this.toError(answer)
    return { accessToken: access_token, expiresAt: this.now() + (expires_in ?? 3600) * 1000 }
  }

  private async send(method: string, path: string, headers: Record<string, string>, body?: string): Promise<Answer> {
    this.interrupted.throwIfAborted()
    const ending = new AbortController()
    const end = () => ending.abort(new Error(`There was no answer within ${TIMEOUT / 1000} seconds`))
    const timer = setTimeout(end, TIMEOUT)
    this.interrupted.addEventListener('abort', end)
    const sent = body === undefined ? headers : { ...headers, 'content-type': 'application/json' }
    const answer = await request(this.now, () => fetch(this.access.url + path, {
      method, headers: sent, body, signal: ending.signal }))
    clearTimeout(timer)
    this.interrupted.removeEventListener('abort', end)
    this.interrupted.throwIfAborted()
    return answer
  }
}

const isJwt = (key: string): boolean => /^[\w-]+\.[\w-]+\.[\w-]+$/.test(key)

/** What a gateway's answers are called, which have no names of their own. */
const names: Record<number, string> = { 401: 'unauthorized', 413: 'payload_too_large', 429: 'rate_limited' }

// Where the database's own hint speaks of requests, these speak of the command line.
const notInstalled = 'Apply the chapters in migrations/; actorscope doctor says which are missing.'
const signInAgain = 'ACTORSCOPE_ACCESS_TOKEN is no token of this project, or has expired: sign in again.'
const hints: Record<string, string | undefined> = {
  unauthenticated: 'Set ACTORSCOPE_API_KEY, or ACTORSCOPE_EMAIL and ACTORSCOPE_PASSWORD.',
  opted_out: 'DO_NOT_TRACK or ACTORSCOPE_DISABLED is set; unset it to track.',
  unauthorized: 'Check ACTORSCOPE_PUBLISHABLE_KEY or ACTORSCOPE_SECRET_KEY.',
  invalid_credentials: 'Check the email address and ACTORSCOPE_PASSWORD.',
  unexpected_answer: 'Is the URL that of a Supabase project? Set ACTORSCOPE_URL or --url.',
  PGRST202: notInstalled,
  PGRST205: notInstalled,
  PGRST301: signInAgain,
  PGRST303: signInAgain,
  json: 'Postgres stores no \\u0000, no half of a surrogate pair, and no number beyond all bounds.',
  PGRST106: 'Expose the schema analytics: Supabase\'s dashboard has that under Settings, Data API.',
  '22P02': 'Check the ids: they are UUIDs.',
  '42883': notInstalled,
  '54001': 'Nest objects and arrays less deeply.',
  '42P01': notInstalled,
  '57014': 'It took too long: ask for less, with --since, --org or --app.',
}

/** What there is to say where the error itself says nothing. */
const sayings: Record<string, string | undefined> = {
  unauthenticated: 'Nobody is signed in, and no API key was sent.',
  opted_out: 'Tracking is switched off.',
}

function sentences(...parts: (string | null | undefined)[]): string | undefined {
  return parts.filter(Boolean).map((part) => part?.replace(/([^.!?])$/, '$1.')).join(' ') || undefined
}

function unreachable(url: string, error: unknown): TrackingError {
  const { cause, message } = error as { cause?: Error & { code?: string, errors?: Error[] }, message?: string }
  const reason = cause?.message || cause?.errors?.[0]?.message || cause?.code || message
  return new TrackingError('network_error', {
    details: sentences(`${url} cannot be reached: ${reason}`),
    hint: isLocal(url) ? 'Does the local stack run? Start it with actorscope up.' : 'Check ACTORSCOPE_URL or --url.',
    cause: error,
  })
}
