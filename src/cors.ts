// What a browser asks before, and reads after, a request of a page from elsewhere. Supabase's gateway answers it in
// front of every service; @supabase/lite does for some: it calls the preflight of an RPC a 404, and leaves Auth's
// headers out.

const methods = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS'
const exposed = 'Content-Range, Content-Location, Preference-Applied, Location, Retry-After'

/** Answers a preflight: any page may send any header. Undefined, where the request is none. */
export function answerPreflight(method: string, headers: Headers): Response | undefined {
  if (method !== 'OPTIONS' || !headers.has('access-control-request-method')) return undefined
  return openToPages(new Response(null, {
    status: 204,
    headers: {
      'access-control-allow-methods': methods,
      'access-control-allow-headers': headers.get('access-control-request-headers') ?? '*',
      'access-control-max-age': '3600',
    },
  }))
}

/** Lets any page read the answer. Credentials are headers here, never cookies, so there is nothing to steal. */
export function openToPages(answer: Response): Response {
  answer.headers.set('access-control-allow-origin', '*')
  answer.headers.set('access-control-expose-headers', exposed)
  return answer
}
