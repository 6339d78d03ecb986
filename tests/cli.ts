import { spawn, type ChildProcess } from 'node:child_process'
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { expect, onTestFinished } from 'vitest'
import { projectDir } from '../src/settings.ts'

/** A command that runs, or has run. */
export type Run = {
  readonly process: ChildProcess
  /** The exit code, once it has ended and all output is there; 128 and the signal's number is null here. */
  readonly exited: Promise<number | null>
  stdout(): string
  stderr(): string
  /** Waits until stdout, or stderr, shows it. */
  prints(text: string | RegExp): Promise<void>
}

export type RunOptions = {
  env?: NodeJS.ProcessEnv
  /** Given on stdin, which is closed then; without it there is none. */
  input?: string | Buffer | AsyncIterable<Buffer>
  cwd?: string
  /** The program that is run, instead of the one in dist/. */
  program?: string[]
}

/** The command line as it is published, built before the tests. */
export const published = [process.execPath, join(projectDir, 'dist/cli.js')]

/** Runs `actorscope` as a process of its own, with none of this process's settings. */
export function start(args: string[], { env, input, cwd, program = published }: RunOptions = {}): Run {
  const [command = '', ...before] = program
  const child = spawn(command, [...before, ...args], {
    cwd: cwd ?? projectDir, env: { ...cleanEnvironment(), ...env }, stdio: ['pipe', 'pipe', 'pipe'] })
  child.stdin.on('error', () => {}) // it may end without reading
  if (typeof input === 'object' && Symbol.asyncIterator in input) Readable.from(input).pipe(child.stdin)
  else child.stdin.end(input ?? '')
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => { stdout += text })
  child.stderr.setEncoding('utf8').on('data', (text: string) => { stderr += text })
  const exited = new Promise<number | null>((done) => child.once('close', (code) => done(code)))
  return {
    process: child,
    exited,
    stdout: () => stdout,
    stderr: () => stderr,
    prints: (text) => expect.poll(() => stdout + stderr, { timeout: 60_000, interval: 20 }).toMatch(text),
  }
}

/** Runs `actorscope` to its end. */
export async function run(args: string[], options: RunOptions = {}): Promise<{ code: number | null, stdout: string, stderr: string }> {
  const running = start(args, options)
  const code = await running.exited
  return { code, stdout: running.stdout(), stderr: running.stderr() }
}

/** Runs `actorscope` to its end in a terminal, which util-linux's script makes, and types into it once it asks. */
export async function inTerminal(
  args: string[], { env, typed, columns = 100 }: { env: NodeJS.ProcessEnv, typed?: string, columns?: number },
): Promise<{ code: number | null, output: string }> {
  const quoted = [...published, ...args].map((word) => `'${word}'`).join(' ')
  const child = spawn('script', ['--quiet', '--return', '--command', `stty cols ${columns}; ${quoted}`, '/dev/null'], {
    env: { ...cleanEnvironment(), TERM: 'xterm', ...env }, stdio: ['pipe', 'pipe', 'pipe'] })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { output += text })
  const exited = new Promise<number | null>((done) => child.once('close', done))
  onTestFinished(() => void child.kill('SIGKILL'))
  if (typed !== undefined) {
    await expect.poll(() => output, { timeout: 60_000 }).toContain(': ')
    child.stdin.write(typed)
  }
  return { code: await exited, output }
}

/** This process's environment without what chooses a project, a caller or colours. */
export function cleanEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) =>
    !/^(ACTORSCOPE_|SUPABASE_|DATABASE_URL|DO_NOT_TRACK|FORCE_COLOR|NO_COLOR|NODE_OPTIONS|CI$|npm_execpath)/.test(name))
  return Object.fromEntries(kept)
}

/** What becomes of a request on its way: it goes through, is answered by somebody else, or is cut off. */
export type Fate = 'passes' | 'is lost' | 'loses its answer' | { status: number, headers?: Record<string, string>, body?: string }

/** A gateway in front of an API. */
export type Gateway = {
  readonly url: string
  /** The bodies of the requests that arrived, as text. */
  readonly bodies: string[]
  stop(): Promise<void>
}

/**
 * Puts a gateway before an API, which decides what becomes of each request.
 *
 * @param fate is asked with the body and how many requests came before
 */
export async function startGateway(apiUrl: string, fate: (body: string, before: number) => Fate | Promise<Fate>): Promise<Gateway> {
  const bodies: string[] = []
  const server = createServer((incoming, outgoing) => {
    void serve(incoming, outgoing).catch(() => outgoing.destroy())
  })
  const serve = async (incoming: IncomingMessage, outgoing: ServerResponse) => {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks)
    bodies.push(body.toString())
    const decided = await fate(body.toString(), bodies.length - 1)
    if (typeof decided === 'object') return void outgoing.writeHead(decided.status, decided.headers).end(decided.body)
    if (decided === 'is lost') return void incoming.socket.destroy()
    const answer = await forward(apiUrl, incoming, body)
    if (decided === 'loses its answer') return void incoming.socket.destroy()
    outgoing.writeHead(answer.status, answer.headers).end(answer.body)
  }
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    bodies,
    stop: () => new Promise((done) => { server.close(() => done()); server.closeAllConnections() }),
  }
}

type Forwarded = { status: number, headers: IncomingMessage['headers'], body: Buffer }

function forward(apiUrl: string, { method, url, headers }: IncomingMessage, body: Buffer): Promise<Forwarded> {
  return new Promise((done, fail) => {
    const sent = request(apiUrl + url, { method, headers }, async (answer) => {
      const chunks: Buffer[] = []
      for await (const chunk of answer) chunks.push(chunk as Buffer)
      const { 'transfer-encoding': _, ...rest } = answer.headers
      done({ status: answer.statusCode ?? 0, headers: rest, body: Buffer.concat(chunks) })
    })
    sent.on('error', fail).end(body)
  })
}
