import { createServer, request, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import { vi } from 'vitest'
import { freePort } from '../src/postgres.ts'

/** What a proxy does with a request. */
export type Deed =
  | 'pass'
  /** Ends the connection, and the API hears nothing of it. */
  | 'reset'
  /** Passes it on, and ends the connection instead of answering. */
  | 'reset after'
  /** Never answers. */
  | 'hang'
  /** Answers by itself. */
  | { status: number, headers?: Record<string, string>, body?: string }

export type Seen = { path: string, headers: IncomingHttpHeaders, body: string, events: any[], at: number }

/** Something between a client and the API that fails on purpose. */
export type Proxy = {
  readonly url: string
  /** The requests for `track_events` so far. */
  readonly seen: Seen[]
  /** What is done with the next such requests, in turn; the rest are passed on. */
  next(...deeds: Deed[]): void
  /** What is done with every such request from now on. */
  always(decide: Deed | ((seen: Seen) => Deed | Promise<Deed>)): void
  close(): Promise<void>
}

export async function startProxy(target: string, port?: number): Promise<Proxy> {
  const seen: Seen[] = []
  const passedOn = new Set<Promise<unknown>>()
  let queue: Deed[] = []
  let decide: Deed | ((seen: Seen) => Deed | Promise<Deed>) = 'pass'
  const handle = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks)
    const { method = 'GET', url: path = '/', headers } = incoming
    let deed: Deed = 'pass'
    if (method === 'POST' && path.includes('/rpc/track_event')) {
      const text = body.toString()
      const one: Seen = { path, headers, body: text, events: parse(text), at: Date.now() }
      seen.push(one)
      deed = queue.shift() ?? (typeof decide === 'function' ? await decide(one) : decide)
    }
    // What its sender has given up on the way has not arrived.
    if (deed === 'hang' || outgoing.destroyed) return
    if (deed === 'reset') return void outgoing.socket?.destroy()
    if (typeof deed === 'object') {
      return void outgoing.writeHead(deed.status, { 'access-control-allow-origin': '*', ...deed.headers }).end(deed.body)
    }
    const answered = passOn(deed, body, incoming, outgoing)
    passedOn.add(answered)
    await answered.finally(() => passedOn.delete(answered))
  }
  const passOn = (
    deed: Deed, body: Buffer, { method, url, headers }: IncomingMessage, outgoing: ServerResponse,
  ) => new Promise<void>((done) => {
    const forwarded = request(target + url, { method, headers: { ...headers, host: new URL(target).host } }, (answer) => {
      answer.on('close', done)
      outgoing.on('close', () => answer.resume())
      if (deed === 'reset after') return void answer.resume().on('end', () => outgoing.socket?.destroy())
      outgoing.writeHead(answer.statusCode ?? 500, answer.headers)
      answer.pipe(outgoing)
    })
    forwarded.on('error', () => { outgoing.socket?.destroy(); done() })
    forwarded.end(body)
  })
  const server = createServer((incoming, outgoing) => {
    handle(incoming, outgoing).catch(() => outgoing.socket?.destroy())
  })
  const listening = port ?? await freePort()
  await new Promise<void>((done, failed) => server.once('error', failed).listen(listening, '127.0.0.1', done))
  return {
    url: `http://127.0.0.1:${listening}`,
    seen,
    next(...deeds) { queue = deeds },
    always(how) { decide = how },
    // What was passed on comes to its end, so that it is in no later test's way.
    async close() {
      await new Promise((done) => { server.close(done); server.closeAllConnections() })
      await Promise.all(passedOn)
    },
  }
}

function parse(body: string): any[] {
  try {
    return [JSON.parse(body).v2].flat()
  } catch {
    return []
  }
}

/** Waits for something to come true, on slow machines too. */
export const until = (isTrue: () => unknown) => vi.waitUntil(isTrue, { timeout: 30_000, interval: 5 })
