import type { Project } from './project.ts'

/** What the Data API said. */
export type Answer = {
  /** The HTTP status; 0, where there was no answer. */
  status: number
  /** The body, read as JSON where it is; else its text, or the error that stood in the way. */
  body: unknown
  retryAfter?: string | null
}

/**
 * Asks a project's Data API in the name of a caller.
 *
 * @param path below `/rest/v1/`; it is posted to where there is a body
 * @param body JSON
 * @returns the answer; never throws. Waits 20 seconds at most, or as long as the project says.
 */
export async function askDataApi(project: Project, caller: Headers, path: string, body?: string): Promise<Answer> {
  try {
    const answer = await fetch(`${project.url}/rest/v1/${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: credentialsOf(caller, project),
      body,
      // A redirect would carry the caller's key to wherever it points.
      redirect: 'manual',
      signal: AbortSignal.timeout(project.timeout ?? 20_000),
    })
    return { status: answer.status, body: parsed(await answer.text()), retryAfter: answer.headers.get('retry-after') }
  } catch (error) {
    return { status: 0, body: error }
  }
}

// Clients of the origin system put all that they may have into Authorization: a JWT, with "Bearer" or without, the
// project's own key, and an API key. The Data API wants each in a header of its own. Which of them counts, and whether
// it is good, is for the database to say.
function credentialsOf(caller: Headers, project: Project): Headers {
  const sent = new Headers({ 'content-type': 'application/json', 'apikey': caller.get('apikey') || project.publishableKey })
  for (const name of ['x-api-key', 'capgkey']) {
    const key = caller.get(name)
    if (key) sent.set(name, key)
  }
  const authorization = caller.get('authorization') ?? ''
  const token = authorization.replace(/^bearer\s+/i, '')
  if (isProjectKey(token)) {
    if (!caller.get('apikey')) sent.set('apikey', token)
  } else if (isJwt(token)) {
    sent.set('authorization', `Bearer ${token}`)
  } else if (isSingleWord(authorization)) {
    if (!sent.has('x-api-key') && !sent.has('capgkey')) sent.set('x-api-key', authorization)
  } else if (authorization) {
    sent.set('authorization', authorization)
  }
  return sent
}

const isProjectKey = (token: string): boolean => token.startsWith('sb_')
const isJwt = (text: string): boolean => /^[\w-]+\.[\w-]+\.[\w-]*$/.test(text)
const isSingleWord = (text: string): boolean => /^\S+$/.test(text) && !/^bearer$/i.test(text)

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
