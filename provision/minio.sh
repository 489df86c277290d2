#!/bin/sh
# Buckets, users and policies of the object store: made, changed, or left as they are; a second run changes nothing.
#
# Beside it: wanted.txt, one thing a line
#   owner NAME                                   value of the tag opstella.stack of each bucket of this stack
#   bucket NAME versioned|- DAYS|- adopt|-       its objects go after DAYS (expiry.NAME.json); adopt: take over another's
#   policy NAME                                  policy.NAME.json, a policy named like a group of the identity provider;
#                                                in it, opstella.kept stands for all buckets with the tag opstella.stack
#   user NAME                                    may do what policy.opstella.access.NAME.json says, and nothing else
# Environment: ENDPOINT, the store's URL; SECRETS, a folder with root/rootUser, root/rootPassword and users/NAME (a secret
# key each); PATIENCE, seconds to wait for a store that does not answer yet.
# It needs mc, a POSIX shell and coreutils: the image of mc has no grep, sed or awk. Secrets go to mc by its environment
# and standard input, never by an argument.
set -eu

HERE=$(dirname "$0")
SECRETS=${SECRETS:-/opstella/secrets}
PATIENCE=${PATIENCE:-300}
TAG=opstella.stack
ACCESS=opstella.access.
MAKING=opstella.making. # a policy of this name stands while a bucket is made, so that a run cut short knows its own
ARN=arn:aws:s3:::
KEPT=${ARN}opstella.kept # in a policy: every bucket with the tag
COUNTED=1000            # objects of a refused bucket are counted up to this number
export HOME="${TMPDIR:-/tmp}" MC_CONFIG_DIR="${TMPDIR:-/tmp}/mc" # mc wants both, the Job has only /tmp to write in
changes=0
answer=

die() { # what, why, what to do
  printf 'error: %s\n  where: %s\n  why: %s\n  what to do: %s\n' "$1" "$ENDPOINT" "$2" "$3" >&2
  exit 1
}

say() {
  changes=$((changes + 1))
  printf '%s\n' "$*"
}

secret() { # file below SECRETS
  [ -r "$SECRETS/$1" ] || die "the secret $1 is not there" "$SECRETS/$1 cannot be read" "mount the Secret with this key"
  cat "$SECRETS/$1"
}

# ask ARGUMENT...: mc's answer as JSON, one object a line, in `answer`; false when mc says no.
ask() {
  answer=$(mc --json "$@" 2>&1)
}

# must WHAT ARGUMENT...: the same, and the end when mc says no.
must() {
  what=$1
  shift
  ask "$@" || die "$what" "$(reason)" "look at the store's log (kubectl -n minio logs deployment/minio), then run the Job again"
}

# field JSON KEY: the text of the first KEY in it, or nothing.
field() {
  case $1 in
    *"\"$2\":\""*)
      rest=${1#*"\"$2\":\""}
      printf '%s' "${rest%%\"*}"
      ;;
  esac
}

# reason: why mc said no.
reason() {
  case $answer in
    *'"cause":{'*) field "${answer#*'"cause":{'}" message ;;
    *) printf '%s' "$answer" ;;
  esac
}

# parts: JSON by standard input as its sorted pieces, so that two documents compare whatever their order and spacing.
parts() {
  tr -d ' \n\t' | tr '{}[],' '\n' | sort
}

# same FILE JSON
same() {
  [ "$(parts < "$1")" = "$(printf '%s' "$2" | parts)" ]
}

wait_for_store() {
  deadline=$(($(date +%s) + PATIENCE))
  until ask ls store; do
    case $answer in
      *InvalidAccessKeyId* | *SignatureDoesNotMatch*)
        die "the store refuses the root credential" "$(reason)" "restart the store: it reads the Secret minio-root only then"
        ;;
    esac
    [ "$(date +%s)" -lt "$deadline" ] ||
      die "the store does not answer after $PATIENCE s" "$(reason)" "look at its pod: kubectl -n minio describe pods"
    sleep 2
  done
}

# read_notes: `notes` are the policies that say which buckets are being made.
read_notes() {
  must "the policies cannot be listed" admin policy ls store
  notes=
  while IFS= read -r line; do
    notes="$notes $(field "$line" policy) "
  done << END
$answer
END
}

noted() { # bucket
  case $notes in
    *" $MAKING$1 "*) return 0 ;;
  esac
  return 1
}

has_policy() {
  ask admin policy info store "$1" && return 0
  case $answer in
    *NoSuchPolicy*) return 1 ;;
  esac
  die "the policy $1 cannot be read" "$(reason)" "look at the store's log, then run the Job again"
}

# --- buckets ---

# bucket_owner NAME: `owner_is` is the tag's value (empty without one), `other_tags` the rest as mc takes them.
bucket_owner() {
  owner_is='' other_tags=''
  if ! ask tag list "store/$1"; then
    case $answer in
      *"No tags found"*) return 0 ;;
    esac
    die "the tags of the bucket $1 cannot be read" "$(reason)" "look at the store's log, then run the Job again"
  fi
  left=${answer#*'"tagset":{'}
  left=${left%%\}*}
  while [ -n "$left" ]; do
    name=${left#\"}
    name=${name%%\"*}
    left=${left#*'":"'}
    content=${left%%\"*}
    left=${left#*\"}
    left=${left#,}
    if [ "$name" = "$TAG" ]; then owner_is=$content; else other_tags="$other_tags&$name=$content"; fi
  done
}

# made_at NAME: since when a bucket is there; false when it is not.
made_at() {
  since=
  while IFS= read -r line; do
    [ "$(field "$line" key)" != "$1/" ] || since=$(field "$line" lastModified)
  done << END
$buckets
END
  [ -n "$since" ]
}

# foreign_bucket NAME: says whose it is and what lies in it.
foreign_bucket() {
  count=$(mc --json ls --recursive "store/$1" 2> /dev/null | head -n "$COUNTED" | wc -l)
  count=$((count + 0))
  [ "$count" -lt "$COUNTED" ] || count="$COUNTED or more"
  printf 'error: the bucket %s exists and was not made by this stack\n' "$1" >&2
  printf '  where: %s, there since %s, with %s objects\n' "$ENDPOINT" "$since" "$count" >&2
  printf '  why: its tag %s is %s, this stack writes %s\n' "$TAG" "${owner_is:-not set}" "$owner" >&2
  printf '  what to do: name %s in opstella:objectStore.adopt to take it over with all that is in it, or remove it\n' "$1" >&2
}

# check_bucket NAME ADOPT: false for another's bucket that is not to be taken over. Changes nothing.
check_bucket() {
  made_at "$1" || return 0
  bucket_owner "$1"
  if [ "$owner_is" = "$owner" ] || [ "$2" = adopt ]; then return 0; fi
  if [ -z "$owner_is" ] && noted "$1"; then return 0; fi
  foreign_bucket "$1"
  return 1
}

# make_bucket NAME VERSIONED DAYS
make_bucket() {
  owner_is='' other_tags=''
  if made_at "$1"; then
    bucket_owner "$1"
  else
    printf '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":["s3:*"],"Resource":["arn:aws:s3:::%s"]}]}\n' "$1" \
      > "$work/making.json"
    must "the making of the bucket $1 cannot be noted" admin policy create store "$MAKING$1" "$work/making.json"
    notes="$notes $MAKING$1 "
    must "the bucket $1 cannot be made" mb --ignore-existing "store/$1"
    say "bucket $1: made"
  fi
  if [ "$owner_is" != "$owner" ]; then
    must "the bucket $1 cannot be tagged" tag set "store/$1" "$TAG=$owner$other_tags"
    say "bucket $1: marked as this stack's; the mark before was: ${owner_is:-none}"
  fi
  if noted "$1"; then
    must "the note on the bucket $1 cannot be removed" admin policy remove store "$MAKING$1"
  fi
  if [ "$2" = versioned ]; then
    must "the versioning of the bucket $1 cannot be read" version info "store/$1"
    if [ "$(field "${answer#*'"versioning"'}" status)" != Enabled ]; then
      must "versioning of the bucket $1 cannot be turned on" version enable "store/$1"
      say "bucket $1: keeps versions"
    fi
  fi
  expire "$1" "$3"
}

# expire NAME DAYS
expire() {
  rules=
  if ask ilm rule export "store/$1"; then
    rules=${answer#*'"config":'}
    rules=${rules%',"updatedAt"'*}
  else
    case $answer in
      *NoSuchLifecycleConfiguration*) ;;
      *) die "the expiry of the bucket $1 cannot be read" "$(reason)" "look at the store's log, then run the Job again" ;;
    esac
  fi
  if [ "$2" != - ]; then
    same "$HERE/expiry.$1.json" "$rules" && return 0
    mc --json ilm rule import "store/$1" < "$HERE/expiry.$1.json" > "$work/answer" 2>&1 ||
      die "the expiry of the bucket $1 cannot be set" "$(cat "$work/answer")" "look at the store's log, then run the Job again"
    say "bucket $1: objects go after $2 days"
    return 0
  fi
  case $rules in
    *'"ID":"opstella"'*)
      must "the expiry of the bucket $1 cannot be taken off" ilm rule rm --id opstella "store/$1"
      say "bucket $1: objects stay"
      ;;
  esac
}

# --- policies and users ---

# find_kept: `kept` are resources, each after a comma: the marked buckets, of this stack or another, wanted or not. Tools
# that were switched off leave their data behind.
find_kept() {
  must "the buckets cannot be listed" ls store
  listed=$answer kept=
  while IFS= read -r line; do
    bucket=$(field "$line" key)
    bucket=${bucket%/}
    [ -n "$bucket" ] || continue
    bucket_owner "$bucket"
    [ -n "$owner_is" ] || continue
    case " $wanted " in
      *" $bucket "*) ;;
      *) kept="$kept,\"$ARN$bucket\",\"$ARN$bucket/*\"" ;;
    esac
  done << END
$listed
END
}

# fill_policy NAME: the kept buckets take the place of the word for them in policy.NAME.json; result in $work/policy.json.
fill_policy() {
  text=$(cat "$HERE/policy.$1.json")
  case $text in
    *"\"$KEPT/*\""*) text="${text%%"\"$KEPT/*\""*}\"$KEPT/*\"$kept${text#*"\"$KEPT/*\""}" ;;
  esac
  printf '%s\n' "$text" > "$work/policy.json"
}

# make_policy NAME
make_policy() {
  fill_policy "$1"
  state=made
  if has_policy "$1"; then
    now=${answer#*'"Policy":'}
    now=${now%',"CreateDate"'*}
    same "$work/policy.json" "$now" && return 0
    state=changed
  fi
  must "the policy $1 cannot be written" admin policy create store "$1" "$work/policy.json"
  say "policy $1: $state"
}

# user_state NAME: `policies` and `enabled` of a user; false when there is none.
user_state() {
  policies='' enabled=''
  if ! ask admin user info store "$1"; then
    case $answer in
      *NoSuchUser*) return 1 ;;
    esac
    die "the user $1 cannot be read" "$(reason)" "look at the store's log, then run the Job again"
  fi
  policies=$(field "$answer" policyName)
  enabled=$(field "$answer" userStatus)
}

# logs_in NAME: whether the store takes the user's own secret key.
logs_in() {
  login="$scheme://$1:$(secret "users/$1")@$address"
  answer=$(MC_HOST_login=$login mc --json ls login 2>&1) && return 0
  case $answer in
    *InvalidAccessKeyId* | *SignatureDoesNotMatch*) return 1 ;;
    *AccessDenied*) return 0 ;;
  esac
  die "the login of the user $1 cannot be tried" "$(reason)" "look at the store's log, then run the Job again"
}

# check_user NAME: false for another's user. Changes nothing.
check_user() {
  secret "users/$1" > /dev/null
  user_state "$1" || return 0
  case ",$policies," in
    *",$ACCESS$1,"*) return 0 ;;
  esac
  if [ "$enabled" = enabled ] && logs_in "$1"; then return 0; fi # made by a run that was cut short
  printf 'error: the user %s exists and was not made by this stack\n' "$1" >&2
  printf '  where: %s, with the policies: %s\n' "$ENDPOINT" "${policies:-none}" >&2
  printf '  why: it lacks the policy %s%s, and its secret key is not the one of this stack\n' "$ACCESS" "$1" >&2
  printf '  what to do: attach the policy %s%s to it, which takes it over, or remove it\n' "$ACCESS" "$1" >&2
  return 1
}

# make_user NAME
make_user() {
  if ! user_state "$1"; then
    set_key "$1"
    say "user $1: made"
  elif [ "$enabled" != enabled ]; then
    must "the user $1 cannot be enabled" admin user enable store "$1"
    say "user $1: enabled"
    logs_in "$1" || { set_key "$1" && say "user $1: has a new secret key"; }
  elif ! logs_in "$1"; then
    set_key "$1"
    say "user $1: has a new secret key"
  fi
  user_state "$1"
  case ",$policies," in
    *",$ACCESS$1,"*) ;;
    *)
      must "the user $1 cannot be given its policy" admin policy attach store "$ACCESS$1" --user "$1"
      say "user $1: may do what $ACCESS$1 says"
      ;;
  esac
  for policy in $(printf '%s' "$policies" | tr ',' ' '); do
    [ "$policy" != "$ACCESS$1" ] || continue
    must "the policy $policy cannot be taken from the user $1" admin policy detach store "$policy" --user "$1"
    say "user $1: may no longer do what $policy says"
  done
}

set_key() {
  secret "users/$1" > "$work/key" # in a folder that is this run's only
  printf '\n' >> "$work/key"
  mc --json admin user add store "$1" < "$work/key" > "$work/answer" 2>&1 || {
    answer=$(cat "$work/answer")
    rm -f "$work/key"
    die "the user $1 cannot be written" "$(reason)" "look at the store's log, then run the Job again"
  }
  rm -f "$work/key"
}

# disable_others: users that this stack made and no longer wants; all others are none of its business.
disable_others() {
  must "the users cannot be listed" admin user ls store
  listed=$answer
  while IFS= read -r line; do
    user=$(field "$line" accessKey)
    if [ -z "$user" ] || [ "$(field "$line" userStatus)" != enabled ]; then continue; fi
    case ",$(field "$line" policyName)," in
      *",$ACCESS$user,"*) ;;
      *) continue ;;
    esac
    case " $users " in
      *" $user "*) continue ;;
    esac
    must "the user $user cannot be disabled" admin user disable store "$user"
    say "user $user: disabled, nothing of this stack uses it any more"
  done << END
$listed
END
}

# each KIND FUNCTION: the function with the words of every such line of wanted.txt; true if it always was.
each() {
  fine=0
  while read -r kind name one two three; do
    [ "$kind" = "$1" ] || continue
    seen=$((seen + 1))
    case $2 in
      check_bucket) set -- "$1" "$2" "$name" "$three" ;;
      *) set -- "$1" "$2" "$name" "$one" "$two" ;;
    esac
    "$2" "$3" "${4:-}" "${5:-}" < /dev/null || fine=1
  done < "$HERE/wanted.txt"
  return $fine
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT
chmod 700 "$work"
: "${ENDPOINT:?the URL of the object store}"
scheme=${ENDPOINT%%://*}
address=${ENDPOINT#*://}
seen=0
MC_HOST_store="$scheme://$(secret root/rootUser):$(secret root/rootPassword)@$address"
export MC_HOST_store
owner='' users='' wanted=
while read -r kind name _; do
  case $kind in
    owner) owner=$name ;;
    user) users="$users $name" ;;
    bucket) wanted="$wanted $name" ;;
  esac
done < "$HERE/wanted.txt"
[ -n "$owner" ] || die "nobody owns the buckets" "wanted.txt names no owner" "give it a line: owner NAME"

wait_for_store
buckets=$answer
read_notes
refused=0
each bucket check_bucket || refused=1
each user check_user || refused=1
[ "$refused" = 0 ] || exit 1

seen=0
each bucket make_bucket
find_kept
each policy make_policy
for user in $users; do make_policy "$ACCESS$user"; done
each user make_user
disable_others
if [ "$changes" = 0 ]; then
  printf 'nothing to change: %s buckets, users and policies are as wanted\n' "$seen"
else
  printf '%s changes; %s buckets, users and policies are as wanted\n' "$changes" "$seen"
fi
