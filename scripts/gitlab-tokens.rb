# frozen_string_literal: true

# Makes the platform's accounts and access tokens in GitLab. Run by `gitlab-rails runner`, which reads a JSON object from
# standard input: `accounts` (username, name, email_domain, administrator), `tokens` (name, account, scopes, value) and
# `expires` (a date). Writes a line for each thing: `changed: …`, `unchanged: …`, or `error: …` and `what to do: …`.
#
# Ours are only the accounts whose admin note, which no user can write, holds MARK (or whose email is the one that former
# versions gave them: username@email_domain), and of their tokens those whose name begins with PREFIX. Nobody logs in to
# them: their address is random; any other one, and an identity of a login provider that is connected to them, is removed.

require 'json'
require 'securerandom'

# A class, for what is defined outside of one becomes a method of every object of GitLab.
class PlatformAccess
  PREFIX = 'opstella '
  MARK = 'made by the Opstella stack'

  def initialize(wanted)
    @accounts, @tokens = wanted.fetch('accounts'), wanted.fetch('tokens')
    @expires = Date.iso8601(wanted.fetch('expires'))
  end

  def run
    users = @accounts.to_h { |one| [one['username'], account(one)] }
    # All of them or none: when a change fails and is taken out of the settings, nothing runs here again.
    PersonalAccessToken.transaction do
      kept = @tokens.map { |one| token(users.fetch(one['account']), one).id }
      users.each_value { |user| revoke_others(user, kept) }
    end
  end

  private

  def account(wanted)
    username = wanted['username']
    user = User.find_by_username(username)
    made = user.nil?
    user ||= make_account(wanted)
    marked = user.note.to_s.include?(MARK)
    if !made && !marked && user.email != former(wanted)
      refuse("the user #{username} exists and is not the platform's: its admin note does not hold '#{MARK}'",
             'rename that user, or write these words into its note to have it taken over: Admin, Users, Edit')
    end
    # Blocked, banned, or deactivated, as GitLab may do by itself with who has not been there for long.
    refuse("the user #{username} is #{user.state}", 'activate it, or its tokens are refused: Admin, Users') unless user.active?
    altered = user.admin? != wanted['administrator']
    user.update!(admin: wanted['administrator']) if altered
    altered |= mark(user, wanted) unless marked
    altered |= forget_addresses(user)
    altered |= disconnect(user)
    puts "#{made || altered ? 'changed' : 'unchanged'}: user #{username}"
    user
  end

  # From now on the note says whose it is, and nobody knows its address.
  def mark(user, wanted)
    if user.email == former(wanted)
      user.skip_reconfirmation!
      user.email = address(wanted)
    end
    user.update!(note: MARK)
    true
  rescue ActiveRecord::RecordInvalid => e
    # An address that is changed is held to the rules for people who sign up; that of a new user is not.
    refuse("GitLab does not take the user #{wanted['username']} with another address: #{e.message}",
           "let it have one of #{wanted['email_domain']}: Admin, Settings, General, Sign-up restrictions")
  end

  # A former address stays with the user as a second one, which is as good as the first.
  def forget_addresses(user)
    others = user.emails.where.not(email: user.email)
    return false if others.empty?

    others.destroy_all
    puts "changed: user #{user.username}: former addresses removed"
    true
  end

  def former(wanted)
    "#{wanted['username']}@#{wanted['email_domain']}"
  end

  def address(wanted)
    "#{wanted['username']}-#{SecureRandom.hex(16)}@#{wanted['email_domain']}"
  end

  # A person who logs in by the provider must not find themselves in this account.
  def disconnect(user)
    return false if user.identities.empty?

    user.identities.destroy_all
    puts "changed: user #{user.username}: logins by other providers disconnected"
    true
  end

  # As its first administrator would make it: ours from the first moment. Nobody knows its password, which has a character
  # of each kind that GitLab can ask for. It sees what everybody sees, also where new users are external.
  def make_account(wanted)
    password = "#{SecureRandom.base64(48)}-aA1"
    answer = Users::CreateService.new(
      User.where(admin: true).order(:id).first,
      username: wanted['username'], name: wanted['name'], email: address(wanted), admin: wanted['administrator'],
      password: password, password_confirmation: password, skip_confirmation: true, external: false, note: MARK,
      organization_id: Organizations::Organization.first.id
    ).execute
    User.find_by_username(wanted['username']) ||
      refuse("GitLab did not make the user #{wanted['username']}: #{reason(answer)}",
             'mend what it names; a group of that name is in the way, too')
  end

  # What the service returns differs between versions: an answer, or the user.
  def reason(answer)
    answer.respond_to?(:message) ? answer.message : answer.errors.full_messages.to_sentence
  end

  def token(user, wanted)
    name = wanted['name']
    found = PersonalAccessToken.find_by_token(wanted['value'])
    return make_token(user, wanted) if found.nil?

    if found.user_id != user.id || found.name != name
      refuse("the value of the token '#{name}' is that of another token", 'generate another value')
    end
    if found.revoked?
      refuse("the token '#{name}' was revoked in GitLab",
             'generate another value: pulumi up --replace, with the URN of its password')
    end
    same = found.scopes.map(&:to_s).sort == wanted['scopes'].sort && found.expires_at == @expires
    found.update!(scopes: wanted['scopes'], expires_at: @expires) unless same
    puts "#{same ? 'unchanged' : 'changed'}: token '#{name}' until #{@expires}"
    found
  end

  def make_token(user, wanted)
    token = user.personal_access_tokens.build(name: wanted['name'], scopes: wanted['scopes'], expires_at: @expires)
    token.set_token(wanted['value'])
    token.save!
    puts "changed: token '#{wanted['name']}' until #{@expires}"
    token
  end

  def revoke_others(user, kept)
    user.personal_access_tokens.not_revoked.each do |old|
      next if kept.include?(old.id) || !old.name.start_with?(PREFIX)

      old.revoke!
      puts "changed: former token '#{old.name}' revoked"
    end
  end

  def refuse(what, remedy)
    puts "error: #{what}", "what to do: #{remedy}"
    exit 1
  end
end

PlatformAccess.new(JSON.parse($stdin.read)).run
