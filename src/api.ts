import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { App } from '@supabase/lite'
import { answerPreflight, openToPages } from './cors.ts'
import { startDashboard, type Demo } from './dashboard.ts'
import { portInUse } from './errors.ts'
import { functionsPath, startFunctions, type Functions } from './functions.ts'
import { connectLite, currentRequest, type CurrentRequest } from './postgrest.ts'

/** The local project's keys: fixed, and harmless, since they open nothing but a stack on this machine. */
export const publishableKey = 'sb_publishable_actorscope_local'
export const secretKey = 'sb_secret_actorscope_local'
export const jwtSecret = 'super-secret-jwt-token-with-at-least-32-characters-long'

/** A running Data and Auth API, with the edge functions. */
export type Api = {
  /** What supabase-js is given. */
  readonly url: string
  stop(): Promise<void>
}

export type ApiOptions = {
  port: number
  /** The login that requests come in by; it must be allowed to take on the role of their credentials. */
  databaseUrl: string
  /** Named in the message when the port is taken. */
  portVariable?: string
  /** Whom the dashboard offers to come in as. */
  demo?: Demo
}

/**
 * Serves Supabase's Data API (`/rest/v1`), Auth API (`/auth/v1`) and the edge functions (`/functions/v1`) over a
 * database, and the dashboard (`/`), on 127.0.0.1 alone. The two APIs are @supabase/lite's, corrected where PostgREST does otherwise; they
 * refuse requests without a key.
 *
 * @throws {StackError} `port_in_use`.
 */
export async function startApi(options: ApiOptions): Promise<Api> {
  const connection = connectLite(options.databaseUrl)
  const app = new App({
    connection,
    api: { enabled: true, schemas: ['public', 'analytics'] },
    auth: { enabled: true, publishable_key: publishableKey, secret_key: secretKey, jwt_secret: jwtSecret },
  })
  const url = `http://127.0.0.1:${options.port}`
  const services = {
    app, functions: startFunctions({ url, publishableKey }), dashboard: startDashboard({ publishableKey, demo: options.demo }) }
  const running = new Set<Promise<void>>()
  const server = createServer((incoming, outgoing) => {
    const served = serve(services, incoming, outgoing).finally(() => running.delete(served))
    running.add(served)
  })
  await listen(server, options).catch(async (error: unknown) => { await connection.close(); throw error })
  return {
    url,
    stop: async () => {
      await new Promise((done) => { server.close(done); server.closeAllConnections() })
      // A request that is still at the database holds a connection, which would be waited for without an end.
      await Promise.allSettled(running)
      await connection.close()
    },
  }
}

function listen(server: Server, { port, portVariable }: ApiOptions): Promise<void> {
  return new Promise((done, fail) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      fail(cause.code === 'EADDRINUSE' ? portInUse(port, portVariable, cause) : cause)
    })
    server.listen(port, '127.0.0.1', done)
  })
}

type Services = { app: App, functions: Functions, dashboard: ReturnType<typeof startDashboard> }

async function serve(services: Services, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  try {
    const headers = readHeaders(incoming)
    const { method = 'GET' } = incoming
    const url = parseUrl(incoming)
    const answer = answerPreflight(method, headers)
      ?? (isApi(url) ? undefined : await services.dashboard(method, url?.pathname ?? ''))
      ?? openToPages(await respond(services, incoming, headers))
    outgoing.writeHead(answer.status, Object.fromEntries(answer.headers))
    outgoing.end(Buffer.from(await answer.arrayBuffer()))
  } catch (error) {
    if (incoming.destroyed) return // whoever asked has gone
    console.error('The API failed at', incoming.method, incoming.url, error)
    outgoing.writeHead(500).end()
  }
}

async function respond({ app, functions }: Services, incoming: IncomingMessage, headers: Headers): Promise<Response> {
  const body = await readBody(incoming)
  const { method = 'GET' } = incoming
  const url = parseUrl(incoming)
  if (method === 'TRACE') return badMethod(method)
  if (!url || !isApi(url)) return invalidPath()
  const request = (content: string | Buffer) => new Request(url, {
    method, headers, ...(method === 'GET' || method === 'HEAD' ? {} : { body: content }) })
  if (url.pathname.startsWith(functionsPath)) return functions(request(body))
  if (url.pathname.startsWith('/rest/') && hasBadToken(headers)) return badToken()
  const json = bodyAsJson(headers, body)
  if (json === null) return invalidJson()
  const current: CurrentRequest = {
    method, path: url.pathname.slice('/rest/v1'.length), headers: Object.fromEntries(headers), json }
  return currentRequest.run(current, () => app.fetch(request(json ?? body)))
}

const isApi = (url: URL | undefined): boolean => /^\/(rest|auth|functions)\/v1\//.test(url?.pathname ?? '')

async function readBody(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of incoming) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

function readHeaders(incoming: IncomingMessage): Headers {
  const headers = new Headers()
  for (const [name, value = ''] of Object.entries(incoming.headers)) headers.set(name, String(value))
  return headers
}

// lite answers 500 to a path with a broken escape.
function parseUrl(incoming: IncomingMessage): URL | undefined {
  try {
    const url = new URL(`http://127.0.0.1${incoming.url}`)
    decodeURIComponent(url.pathname)
    return url
  } catch {
    return undefined
  }
}

// lite takes a bearer token that is no JWT for no token at all; PostgREST refuses it. Supabase's keys are no tokens.
function hasBadToken(headers: Headers): boolean {
  const token = /^bearer(?:\s+(.*))?$/i.exec(headers.get('authorization') ?? '')
  if (!token) return false
  const [, value = ''] = token
  if (value === headers.get('apikey') || value.startsWith('sb_')) return false
  return !/^[^.\s]+\.[^.\s]+\.[^.\s]+$/.test(value)
}

/** @returns the body's text where it is JSON, null where it only says so, undefined where it is something else. */
function bodyAsJson(headers: Headers, body: Buffer): string | null | undefined {
  const type = headers.get('content-type') ?? ''
  if (body.length === 0 || !(type === '' || type.includes('json'))) return undefined
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(body)
    JSON.parse(text)
    return text
  } catch {
    return null
  }
}

const refuse = (status: number, code: string, message: string): Response =>
  Response.json({ code, details: null, hint: null, message }, { status })
const badMethod = (method: string) => refuse(405, 'PGRST117', `Unsupported HTTP method: ${method}`)
const invalidPath = () => refuse(404, 'PGRST125', 'Invalid path specified in request URL')
const invalidJson = () => refuse(400, 'PGRST102', 'Empty or invalid json')
const badToken = () => refuse(401, 'PGRST301', 'Expected 3 parts in JWT')
