import { spawn } from 'node:child_process'
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { publishableKey } from '../src/api.ts'
import { startFunctions } from '../src/functions.ts'
import { freePort } from '../src/postgres.ts'
import { projectDir } from '../src/settings.ts'
import { temporaryFolder } from './world.ts'

/** The edge functions, wherever they run. A path begins with the function's name: /private/events. */
export type Door = {
  request(path: string, init?: RequestInit): Promise<Response>
  close(): Promise<void>
}

/** The ways to run the functions over a Data API; all of them must answer alike. */
export const doors: [name: string, open: (dataApi: string) => Promise<Door>][] = [
  ['in real Deno', openInDeno],
  ['in the local stack', async (dataApi) => openInStack(dataApi)],
]

/** Where nothing but the function itself can be put before a Data API: the same handler, in this process. */
export function openInProcess(dataApi: string, timeout?: number): Door {
  const functions = startFunctions({ url: dataApi, publishableKey, timeout })
  return {
    request: (path, init) => functions(new Request(`http://127.0.0.1/functions/v1${path}`, init)),
    close: async () => {},
  }
}

function openInStack(stack: string): Door {
  return { request: (path, init) => fetch(`${stack}/functions/v1${path}`, init), close: async () => {} }
}

// One process a function, as Supabase runs them. Both ways of naming the project's key are used.
async function openInDeno(dataApi: string): Promise<Door> {
  const functions = new Map([
    ['private', await runInDeno('private', {
      SUPABASE_URL: dataApi, SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ web: 'sb_publishable_web', default: publishableKey }) })],
    ['app', await runInDeno('app', { SUPABASE_URL: `${dataApi}/`, SUPABASE_ANON_KEY: publishableKey })],
  ])
  return {
    request: (path, init) => fetch(`${(functions.get(path.split('/')[1] ?? '') ?? functions.get('private'))?.url}${path}`, init),
    close: async () => { for (const { stop } of functions.values()) await stop() },
  }
}

/** Runs an edge function in Deno, with the permissions it needs and no others, and nothing from the network. */
export async function runInDeno(name: string, environment: Record<string, string>): Promise<{ url: string, stop(): Promise<void> }> {
  const port = await freePort()
  const deno = await startDeno([
    'run', ...offline, '--no-prompt', '--allow-net=127.0.0.1',
    '--allow-env=SUPABASE_URL,SUPABASE_PUBLISHABLE_KEYS,SUPABASE_ANON_KEY', join(functionsDir, name, 'index.ts'),
  ], { ...environment, DENO_SERVE_ADDRESS: `tcp:127.0.0.1:${port}` })
  await deno.prints(`:${port}/`)
  return { url: `http://127.0.0.1:${port}`, stop: deno.stop }
}

export const functionsDir = join(projectDir, 'supabase/functions')

/** What makes Deno take packages from node_modules alone. */
export const offline = ['--node-modules-dir=manual', '--no-remote', '--no-lock']

/** Starts Deno in an environment of nothing but what is given. */
export async function startDeno(args: string[], environment: Record<string, string> = {}) {
  const cache = await temporaryFolder()
  const child = spawn(join(projectDir, 'node_modules/.bin/deno'), args, {
    cwd: projectDir,
    env: { ...environment, PATH: process.env.PATH, DENO_DIR: cache.path, NO_COLOR: '1', DENO_NO_UPDATE_CHECK: '1', NPM_CONFIG_REGISTRY: 'http://127.0.0.1:1' },
  })
  let output = ''
  let report = () => {}
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => { output += chunk; report() })
  const exited = new Promise<number | null>((done) => {
    child.once('error', (error) => { output += error; done(null) })
    child.once('close', (code) => done(code))
  }).finally(() => cache.remove())
  return {
    exited,
    output: () => output,
    /** Waits until the text is in the output; throws where the process ends before. */
    async prints(text: string) {
      const printed = new Promise<void>((done) => { report = () => { if (output.includes(text)) done() } })
      report()
      const ended = exited.then(() => { throw new Error(`Deno has ended:\n${output}`) })
      await Promise.race([printed, ended])
    },
    async stop() {
      child.kill()
      await exited
    },
  }
}

/** A request as a server got it. */
export type Received = { method: string, url: string, headers: IncomingHttpHeaders, body: Buffer }

/** A server that answers every request in one way, and remembers them. */
export type Upstream = { url: string, requests: Received[], close(): Promise<void> }

export async function startUpstream(answer: (response: ServerResponse, request: Received) => void): Promise<Upstream> {
  const requests: Received[] = []
  const server = createServer(async (incoming, response) => {
    const { method = '', url = '', headers } = incoming
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const request = { method, url, headers, body: Buffer.concat(chunks) }
    requests.push(request)
    answer(response, request)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    close: () => new Promise((done) => { server.close(() => done()); server.closeAllConnections() }),
  }
}
