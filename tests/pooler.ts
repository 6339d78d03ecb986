import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/** A pooler before Postgres. */
export type Pooler = {
  readonly url: string
  /** The names of the statements that clients prepared; '' is of those for one transaction. */
  readonly statements: Set<string>
  close(): Promise<void>
}

/**
 * Starts a pooler in transaction mode: each transaction of a client goes to any of the servers, and to another one
 * than the last where it can. Clients log in to a server of their own, which serves all of them from then on.
 */
export async function startPooler(databaseUrl: string): Promise<Pooler> {
  const { port, hostname } = new URL(databaseUrl)
  const pool = new Pool()
  const sockets = new Set<Socket>()
  const listener = createServer((client) => {
    const upstream = connect(Number(port), hostname)
    for (const socket of [client, upstream]) sockets.add(socket.on('error', () => {}))
    login(client, upstream, () => new Client(client, pool), pool)
  })
  await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done))
  const url = new URL(databaseUrl)
  url.port = String((listener.address() as AddressInfo).port)
  return {
    url: url.href,
    statements: pool.statements,
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((done) => listener.close(done))
    },
  }
}

/** Passes on what both say until the server is ready for queries. */
function login(client: Socket, upstream: Socket, begin: () => void, pool: Pool): void {
  client.on('data', (data) => upstream.write(data))
  const messages = new Messages()
  upstream.on('data', (data) => {
    client.write(data)
    if (!messages.take(data).some(({ type }) => type === 'Z')) return
    client.removeAllListeners('data')
    upstream.removeAllListeners('data')
    pool.add(new Server(upstream))
    begin()
  })
}

type Message = { type: string, status: string, bytes: Buffer }

/** Cuts a stream into messages: a letter, the length of the rest, and the rest. */
class Messages {
  private rest: Buffer = Buffer.alloc(0)

  take(data: Buffer): Message[] {
    this.rest = Buffer.concat([this.rest, data])
    const messages: Message[] = []
    while (this.rest.length >= 5 && this.rest.length > this.rest.readInt32BE(1)) {
      const bytes = this.rest.subarray(0, 1 + this.rest.readInt32BE(1))
      messages.push({ type: String.fromCharCode(bytes[0]!), status: String.fromCharCode(bytes[5] ?? 0), bytes })
      this.rest = this.rest.subarray(bytes.length)
    }
    return messages
  }
}

/** A server, and what it still owes an answer to. */
class Server {
  client: Client | undefined
  private owed = 0
  private isAmid = false

  constructor(readonly socket: Socket) {
    const messages = new Messages()
    socket.on('data', (data) => { for (const message of messages.take(data)) this.heard(message) })
  }

  say({ type, bytes }: Message): void {
    this.isAmid = type !== 'S' && type !== 'Q'
    if (!this.isAmid) this.owed++
    this.socket.write(bytes)
  }

  private heard({ type, status, bytes }: Message): void {
    this.client?.socket.write(bytes)
    if (type === 'Z' && --this.owed === 0 && status === 'I' && !this.isAmid) this.client?.letGo()
  }
}

/** The servers that nobody has, and the clients that wait for one. */
class Pool {
  readonly statements = new Set<string>()
  private readonly free: Server[] = []
  private readonly waiting: ((server: Server) => void)[] = []

  add(server: Server): void {
    const next = this.waiting.shift()
    if (next) next(server)
    else this.free.push(server)
  }

  take(last: Server | undefined, use: (server: Server) => void): void {
    const place = this.free.findIndex((server) => server !== last)
    const [server] = this.free.splice(Math.max(0, place), 1)
    if (server) use(server)
    else this.waiting.push(use)
  }
}

/** A client that has logged in. */
class Client {
  private server: Server | undefined
  private last: Server | undefined
  private isWaiting = false
  private queue: Message[] = []

  constructor(readonly socket: Socket, private readonly pool: Pool) {
    const messages = new Messages()
    socket.on('data', (data) => {
      const said = messages.take(data).filter(({ type }) => type !== 'X')
      for (const { type, bytes } of said) {
        if (type === 'P') pool.statements.add(bytes.toString('utf8', 5, bytes.indexOf(0, 5)))
      }
      this.queue.push(...said)
      this.pass()
    })
    // What it has left behind in the middle of a transaction is of use to nobody.
    socket.on('close', () => { if (this.server) this.server.socket.destroy() })
  }

  letGo(): void {
    const { server } = this
    this.last = server
    this.server = undefined
    if (server) {
      server.client = undefined
      this.pool.add(server)
    }
    this.pass()
  }

  private pass(): void {
    if (this.queue.length === 0 || this.isWaiting) return
    if (this.server) {
      for (const message of this.queue.splice(0)) this.server.say(message)
      return
    }
    this.isWaiting = true
    this.pool.take(this.last, (server) => {
      this.isWaiting = false
      this.server = server
      server.client = this
      this.pass()
    })
  }
}
