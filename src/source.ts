/** A project, for programs that have no supabase-js. */
export type Connection = {
  /** The project's URL, such as `https://abc.supabase.co` or `http://127.0.0.1:54321`. */
  readonly url: string
  /** The project's publishable (or anon) key; a backend that speaks as the service role gives its secret key here. */
  readonly publishableKey: string
  /** An API key of `create_api_key`, for the header `x-api-key`. */
  readonly apiKey?: string
  /** A person's JWT, or what returns the one of this moment: it is asked again for every event and every request. */
  readonly accessToken?: string | (() => Token | PromiseLike<Token>)
}

/** A client made by supabase-js's `createClient`. */
export type SupabaseClient = { readonly auth: object, rpc(...args: never[]): unknown }

/** Somebody, or nobody, and how to prove it. */
export type Who = {
  /** Whose events may go out with these headers; no secret. Undefined: nobody's. */
  readonly identity?: string
  readonly headers?: Record<string, string>
}

/** Where events go, and who sends them. */
export type Source = {
  /** The URL of the RPC `track_events`. */
  readonly url: string
  /** The client's own `fetch`, where it was given one. */
  readonly fetch?: typeof fetch
  /** Who is there now: at once, where that is known at once. */
  now(): Who | PromiseLike<Who>
  /** Who is there, with credentials as fresh as can be had. */
  ask(): PromiseLike<Who>
  /** Tells of everybody who comes and goes; returns how to stop it. Absent: only `now` and `ask` would notice. */
  watch?(listener: (who: Who) => void): () => void
}

type Token = string | null | undefined
type MakeWho = (token: Token) => Who

// A connection, or what a supabase-js client is inside. The client's `rpc` would do for sending, but it hides
// Retry-After, and waits for the session first, for which there is no time while a page is left.
type Inside = Partial<Connection> & {
  supabaseUrl?: string
  supabaseKey?: string
  headers?: Record<string, string>
  settings?: { global?: { fetch?: typeof fetch } }
  auth?: Auth
}
type Auth = {
  getSession(): PromiseLike<{ data: { session: Session }, error: unknown }>
  onAuthStateChange(listener: (event: string, session: Session) => void): { data: { subscription: { unsubscribe(): void } } }
}
type Session = { access_token: string } | null

/** Opens a supabase-js client or a connection as the way that events take. */
export function openSource(from: SupabaseClient | Connection): Source {
  const inside = from as Inside
  const { supabaseUrl, url = supabaseUrl, supabaseKey, publishableKey = supabaseKey, apiKey, settings, auth } = inside
  const headers: Record<string, string> = {
    'content-type': 'application/json',
    'apikey': publishableKey!,
    ...Object.fromEntries(new Headers(inside.headers)),
    ...(apiKey && { 'x-api-key': apiKey }),
  }
  // In the order in which supabase-js itself lets them win.
  const given = headers.authorization?.slice(7) ?? inside.accessToken
  const isSession = auth && !given
  const isAsked = typeof given === 'function'
  // Where the credentials are constant nobody else will ever come: without any, it is for the database to refuse.
  const who = credentials(headers, isSession || isAsked ? undefined : 'nobody')
  const now = () => {
    const token = isAsked ? given.call(from) : given
    return token && typeof token === 'object' ? token.then(who) : who(token)
  }
  return {
    url: `${url!.replace(/\/+$/, '')}/rest/v1/rpc/track_events`,
    fetch: settings?.global?.fetch,
    ...isSession ? sessions(auth, who) : { now, ask: async () => now() },
  }
}

// Whose session it is follows from supabase-js's events alone, in their order: an answer of getSession may be older
// than a sign-out. It brings the session that was there before the first event, and fresher tokens.
function sessions(auth: Auth, who: MakeWho): Pick<Source, 'now' | 'ask' | 'watch'> {
  let latest: Who | undefined
  const now = () => latest ?? {}
  return {
    now,
    async ask() {
      const { data: { session }, error } = await auth.getSession()
      const asked = who(session?.access_token)
      if (!error && (!latest || latest.identity === asked.identity)) latest = asked
      return now()
    },
    watch(listener) {
      const { data } = auth.onAuthStateChange((_event, session) => listener(latest = who(session?.access_token)))
      return () => data.subscription.unsubscribe()
    },
  }
}

/** Makes one `Who` a token: the same one for the same token, so that a fresh one is told from one that was refused. */
function credentials(common: Record<string, string>, nobody: string | undefined): MakeWho {
  const { apikey, 'x-api-key': apiKey = common.capgkey } = common as { apikey: string, [header: string]: string | undefined }
  let last: Token
  let made: Who | undefined
  return (token) => {
    if (made && token === last) return made
    last = token
    const { sub } = claimsOf(token)
    const secret = apiKey || token || (/^sb_secret_/.test(apikey) || claimsOf(apikey).role === 'service_role') && apikey
    return made = {
      identity: sub ? `user:${sub}` : secret ? fingerprint(secret) : nobody,
      headers: { ...common, authorization: `Bearer ${token || apikey}` },
    }
  }
}

// Not verified, which is for the database to do: it only tells whose events may share a request.
function claimsOf(token: Token): { sub?: string, role?: string } {
  try {
    return JSON.parse(atob(token!.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/'))) ?? {}
  } catch {
    return {}
  }
}

// Tells keys apart in a persistent queue, where no key may stand: 45 bits, which say next to nothing of it.
function fingerprint(text: string): string {
  let hash = 0
  for (const character of text) hash = (hash * 131 + character.charCodeAt(0)) % (2 ** 45 - 55)
  return hash.toString(36)
}
